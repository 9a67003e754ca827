// What wit/policy.wit becomes in JavaScript, as far as this policy uses it. Names are in camel case, a variant is
// { tag, val }, an option that is none is null on QuickJS and undefined on StarlingMonkey: compare with == null.

export interface Settings {
  cluster: string;
  task_definition: string;
  spot?: boolean;
}

export type Arch = "x86-64" | "arm64";
export type Capacity = "on-demand" | "spot";

/** Facts: the server or the operator vouches for them. */
export interface GitRef {
  /** True, but whoever can push chooses it. */
  name: string;
  kind: "branch" | "tag" | "other";
  sha: string;
  /** None (an old GitLab) must be treated as not protected. */
  protected?: boolean | null;
}

export interface EarlierFailure {
  attempt: number;
  kind: "capacity" | "spot-interruption" | "out-of-memory" | "other";
  detail: string;
}

/** What the operator offers. */
export interface TaskDefinition {
  name: string;
  archs: Arch[];
  cpuUnits: number;
  memoryMib: number;
  labels: [string, string][];
}

export interface Limits {
  maxCpuUnits: number;
  maxMemoryMib: number;
  maxEphemeralStorageGib: number;
  capacities: Capacity[];
}

/** What the policy asks for; each call is recorded as read. */
export interface Job {
  gitRef(): GitRef;
  earlierFailures(): EarlierFailure[];
  taskDefinitions(): TaskDefinition[];
  limits(): Limits;
}

export interface Placement {
  cluster: string;
  taskDefinition: string;
  arch: Arch;
  capacity: Capacity;
  cpuUnits?: number;
  memoryMib?: number;
  ephemeralStorageGib?: number;
  role?: string;
  labels: [string, string][];
  extra: [string, string][];
  reason: string;
}

export interface Rejection {
  code: string;
  message: string;
  hint?: string;
}

export type Decision =
  | { tag: "place"; val: Placement[] }
  | { tag: "abstain" }
  | { tag: "reject"; val: Rejection };

export interface SettingProblem {
  path: string;
  message: string;
}
