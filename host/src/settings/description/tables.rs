//! The tables and their keys.

use super::{Choice, Key, Need, Table, Value};
use Need::{Default, OneOf, Optional, Required};
use Value::{
    Anything, Choices, Cpu, Duration, Flag, Labels, Memory, Name, Named, NamedBy, Number, RoleArn,
    Sha256, Storage, TaskPath, Text, Texts, Url,
};

/// More than any list of the file has.
const MANY: usize = usize::MAX;

const fn key(name: &'static str, need: Need, value: Value, about: &'static str) -> Key {
    Key { name, need, value, about }
}

/// The file.
pub(crate) static ROOT: Table = Table {
    about: "The file `pointsman.toml`, by default in `/etc/pointsman`.",
    keys: &[
        key("state", Required, Value::Table(&STATE), "Where the driver keeps what it knows."),
        key(
            "manager",
            Optional("its defaults"),
            Value::Table(&MANAGER),
            "Who this runner manager is.",
        ),
        key("gitlab", Optional("GitLab is not asked"), Value::Table(&GITLAB), "The GitLab server."),
        key(
            "ssh",
            Optional("its defaults"),
            Value::Table(&SSH),
            "Patience with the tasks' SSH servers.",
        ),
        key("log", Optional("its defaults"), Value::Table(&LOG), "The log for operators."),
        key("sweep", Optional("its defaults"), Value::Table(&SWEEP), "Looking for leaked tasks."),
        key(
            "clusters",
            Required,
            NamedBy { key: "backend", tables: &[("ecs", &CLUSTER_ECS), ("local", &CLUSTER_LOCAL)] },
            "Where tasks can run, at least one.",
        ),
        key(
            "task_definitions",
            Required,
            Named(&TASK_DEFINITION),
            "What tasks can be made of, at least one.",
        ),
        key("roles", Optional("none"), Named(&ROLE), "The IAM roles that tasks can get."),
        key("policies", Optional("none"), Named(&POLICY), "Who decides where jobs run."),
        key(
            "profiles",
            Required,
            Named(&PROFILE),
            "Environments: which policies decide, and within which bounds; at least one.",
        ),
    ],
};

pub(crate) static STATE: Table = Table {
    about: "What one stage leaves for the next, records of ended jobs, and compiled policies lie in one directory. It must be the same for all stages, belong to the user that `gitlab-runner` runs as, and live as long as the jobs.",
    keys: &[key(
        "directory",
        Required,
        Text,
        "Such as `\"/var/lib/pointsman\"`. A relative path is one of the settings file's directory.",
    )],
};

pub(crate) static MANAGER: Table = Table {
    about: "Several runner managers can share a cluster if their names differ.",
    keys: &[key(
        "name",
        Default("\"default\""),
        Name,
        "Tells this manager's tasks from another's: it is in their `startedBy` and in their tags.",
    )],
};

const JOB_TAGS: &[Choice] = &[
    ("required", "without an answer the job is a system failure"),
    ("preferred", "without an answer the profile's tags stand in, and the job log says so"),
    ("off", "the server is not asked, and each job has its profile's tags"),
];

pub(crate) static GITLAB: Table = Table {
    about: "GitLab Runner does not tell a driver the job's tags. With a `url`, the driver asks the server for them with the job's token, once per attempt, and for further facts about the job.",
    keys: &[
        key(
            "url",
            Optional("GitLab is not asked"),
            Url,
            "Such as `\"https://gitlab.example.com\"`. Without encryption only on this machine, since the job's token is sent there.",
        ),
        key(
            "job_tags",
            Default("\"preferred\""),
            Value::Choice(JOB_TAGS),
            "What the job's own tags are needed for.",
        ),
        key("timeout", Default("\"5s\""), Duration, "Of one request."),
        key(
            "ca_file",
            Optional("the system's"),
            Text,
            "Certificates in PEM to trust instead of the system's. A relative path is one of the settings file's directory.",
        ),
    ],
};

pub(crate) static SSH: Table = Table {
    about: "How long the driver is patient with a task's SSH server.",
    keys: &[
        key(
            "ready_timeout",
            Default("\"2m\""),
            Duration,
            "From RUNNING to an authenticated session.",
        ),
        key("connect_timeout", Default("\"5s\""), Duration, "One TCP and SSH handshake."),
        key(
            "keepalive",
            Default("\"15s\""),
            Duration,
            "Without an answer for three of these, the connection is lost.",
        ),
        key(
            "resume_timeout",
            Default("\"5m\""),
            Duration,
            "From a lost connection to giving a script up that goes on in the agent.",
        ),
        key(
            "stop_grace",
            Default("\"10s\""),
            Duration,
            "From SIGTERM to SIGKILL of what a cancelled script has started.",
        ),
    ],
};

const LEVEL: &[Choice] = &[
    ("error", "what failed"),
    ("warn", "and what somebody should look at"),
    ("info", "and what was done"),
    ("debug", "and why"),
    ("trace", "and everything else"),
];

const FORMAT: &[Choice] = &[("text", "a line an event"), ("json", "one JSON object a line")];

pub(crate) static LOG: Table = Table {
    about: "What the driver tells its operators, apart from what job logs are meant to say. `--log-level`, `--log-format` and `--log-file` count more.",
    keys: &[
        key(
            "level",
            Optional("the environment variable `POINTSMAN_LOG`, or else warnings"),
            Value::Choice(LEVEL),
            "How much is told.",
        ),
        key("format", Default("\"text\""), Value::Choice(FORMAT), "How it is written."),
        key(
            "file",
            Optional("stderr, which GitLab Runner copies into the job log"),
            Text,
            "A file to append to. A relative path is one of the settings file's directory.",
        ),
    ],
};

pub(crate) static SWEEP: Table = Table {
    about: "What was started and never stopped.",
    keys: &[key(
        "automatic",
        Default("true"),
        Flag,
        "Whether `prepare` looks for leaked tasks, at most once in five minutes.",
    )],
};

const LABELS: Key = key(
    "labels",
    Optional("none"),
    Labels,
    "Texts that policies see, such as `{ tier = \"dev\" }`.",
);

const BACKEND: &[Choice] =
    &[("ecs", "tasks of Amazon ECS"), ("local", "processes of this machine")];

const LAUNCH: &[Choice] = &[
    ("fargate", "Fargate, and Fargate Spot"),
    ("ec2", "the cluster's own container instances"),
    ("managed-instances", "EC2 instances that ECS manages, through a capacity provider"),
    ("external", "machines of your own, with ECS Anywhere"),
];

const NETWORK_MODE: &[Choice] = &[
    ("awsvpc", "each task has a network interface, as always on Fargate"),
    ("host", "tasks use the instance's network"),
    ("bridge", "ports of the instance are mapped to the tasks'"),
];

const ADDRESS: &[Choice] = &[
    ("private", "the private address"),
    ("public", "the public address, which tasks on Fargate have with `assign_public_ip`"),
];

pub(crate) static CLUSTER_ECS: Table = Table {
    about: "An Amazon ECS cluster. docs/clusters.md has examples, what goes with which `launch`, and the permissions.",
    keys: &[
        key("backend", Required, Value::Choice(BACKEND), "Who runs the tasks: `\"ecs\"` here."),
        key("region", Required, Name, "The AWS Region, such as `\"eu-west-1\"`."),
        key(
            "cluster",
            Required,
            Text,
            "The ECS cluster's name or ARN; the ARN where it is in another account.",
        ),
        key("launch", Default("\"fargate\""), Value::Choice(LAUNCH), "What tasks run on."),
        key(
            "network_mode",
            Optional("`\"awsvpc\"`, on external instances `\"bridge\"`"),
            Value::Choice(NETWORK_MODE),
            "The network mode of the ECS task definitions that are used here.",
        ),
        key(
            "subnets",
            Optional("a mistake with `awsvpc`, else none"),
            Texts(1, 16),
            "1 to 16 subnets of one VPC. Only with `awsvpc`.",
        ),
        key(
            "security_groups",
            Optional("the VPC's default group"),
            Texts(0, 5),
            "At most 5; they must let the runner manager reach the SSH port. Only with `awsvpc`.",
        ),
        key(
            "assign_public_ip",
            Default("false"),
            Flag,
            "Gives tasks a public address as well. Fargate only.",
        ),
        key(
            "address",
            Default("\"private\""),
            Value::Choice(ADDRESS),
            "The address that the driver connects to.",
        ),
        key(
            "on_demand_provider",
            Optional("a launch type is asked for"),
            Text,
            "The capacity provider for on-demand tasks; required for Managed Instances.",
        ),
        key(
            "spot_provider",
            Optional("`\"FARGATE_SPOT\"` on Fargate, else none"),
            Text,
            "The capacity provider for Spot tasks. Without one, policies cannot choose Spot here.",
        ),
        key(
            "platform_version",
            Optional("ECS's `LATEST`"),
            Text,
            "Fargate's platform version, such as `\"1.4.0\"`. Fargate only.",
        ),
        key(
            "execution_role",
            Optional("the task definition's"),
            RoleArn,
            "The role that pulls images and writes logs.",
        ),
        key(
            "enable_execute_command",
            Default("false"),
            Flag,
            "Lets `aws ecs execute-command` into tasks. They need a task role.",
        ),
        key(
            "propagate_tags",
            Default("false"),
            Flag,
            "Gives tasks the tags of their task definition.",
        ),
        key(
            "profile",
            Optional("AWS's usual chain"),
            Text,
            "A profile of AWS's own files, and no other source of credentials.",
        ),
        key(
            "assume_role",
            Optional("none"),
            Value::Table(&ASSUME_ROLE),
            "The role to take before the first call, for a cluster in another account.",
        ),
        key(
            "start_timeout",
            Default("\"10m\""),
            Duration,
            "From RunTask's answer to RUNNING: image pulls count, the SSH server's start does not.",
        ),
        key(
            "request_quota",
            Default("1"),
            Number(1, 100),
            "How many times AWS's default quotas of API requests the account has.",
        ),
        LABELS,
    ],
};

const SESSION_FACTS: &[Choice] = &[
    ("manager", "`[manager] name`"),
    ("profile", "the profile that decided"),
    ("project", "the project's id"),
    ("pipeline", "the pipeline's id"),
    ("job", "the job's id"),
];

pub(crate) static ASSUME_ROLE: Table = Table {
    about: "The role by which a cluster in another account is reached.",
    keys: &[
        key("arn", Required, RoleArn, "The role."),
        key(
            "external_id",
            Optional("none"),
            Text,
            "What the role's trust policy asks as `sts:ExternalId`: 2 to 1,224 of letters, digits and `_+=,.@:/-`.",
        ),
        key(
            "session_name",
            Default("\"pointsman\""),
            Text,
            "Shown in the other account's CloudTrail: 2 to 64 characters, in which `{manager}`, `{profile}`, `{project}`, `{pipeline}` and `{job}` are filled in.",
        ),
        key(
            "session_tags",
            Optional("none"),
            Choices(SESSION_FACTS),
            "Facts that become session tags `pointsman:project` and so on.",
        ),
        key(
            "duration",
            Optional("STS's hour"),
            Duration,
            "`\"15m\"` to `\"12h\"`, and no more than the role allows.",
        ),
    ],
};

pub(crate) static CLUSTER_LOCAL: Table = Table {
    about: "This machine: each task is a process of the agent, for small jobs and for trying out.",
    keys: &[
        key("backend", Required, Value::Choice(BACKEND), "Who runs the tasks: `\"local\"` here."),
        key(
            "agent",
            Optional("`pointsman-agent` beside the driver"),
            Text,
            "The agent's executable.",
        ),
        LABELS,
    ],
};

const ONE_ARCH: &[&str] = &["x86_64", "arm64"];

const SHELL: &[Choice] = &[
    ("bash", "Bash"),
    ("sh", "any POSIX shell"),
    (
        "login",
        "the login shell of the SSH user, while GitLab Runner's `config.toml` says for which shell scripts are made",
    ),
];

const SIZE: &[Choice] = &[(
    "task-definition",
    "CPU and memory of the ECS task definition are not overridden, and the bounds do not apply to them",
)];

pub(crate) static TASK_DEFINITION: Table = Table {
    about: "What a task is made of: the ECS task definition for each architecture, and what the driver has to know of the image. At least one of `x86_64` and `arm64` must be there.",
    keys: &[
        key(
            "x86_64",
            OneOf(ONE_ARCH),
            Text,
            "The ECS task definition for x86: its family, `family:revision` or ARN.",
        ),
        key("arm64", OneOf(ONE_ARCH), Text, "The same for ARM."),
        key(
            "container",
            Default("\"ci-coordinator\""),
            Text,
            "The container that runs the SSH server.",
        ),
        key("cpu", Default("\"1\""), Cpu, "vCPUs of jobs whose policies name no size."),
        key("memory", Default("\"2GiB\""), Memory, "Memory of jobs whose policies name no size."),
        key(
            "size",
            Optional("`cpu` and `memory`"),
            Value::Choice(SIZE),
            "In place of `cpu` and `memory`.",
        ),
        key(
            "builds_dir",
            Default("\"/builds\""),
            TaskPath,
            "Where sources are, in the task. GitLab Runner is told; `\"runner\"` leaves it to its `config.toml`.",
        ),
        key(
            "cache_dir",
            Default("\"/cache\""),
            TaskPath,
            "Where caches are, in the task. GitLab Runner is told; `\"runner\"` leaves it to its `config.toml`.",
        ),
        key(
            "shell",
            Default("\"bash\""),
            Value::Choice(SHELL),
            "The shell of the generated scripts, which the image must have.",
        ),
        key("ssh", Required, Value::Table(&TASK_SSH), "How to reach a task."),
        LABELS,
    ],
};

const SERVER: &[Choice] = &[
    ("openssh", "stock `sshd`, given `SSH_PUBLIC_KEY` as in GitLab's documentation"),
    ("agent", "`pointsman-agent`: scripts survive a lost connection"),
];

const HOST_KEY: &[Choice] = &[
    (
        "injected",
        "the driver makes the key and gives it to the task, so it is verified from the first packet, as always with the agent",
    ),
    ("first-contact", "the first key seen is pinned for the rest of the attempt"),
];

pub(crate) static TASK_SSH: Table = Table {
    about: "The SSH server in the task. docs/ssh.md says what an image needs.",
    keys: &[
        key("server", Required, Value::Choice(SERVER), "What listens in the task."),
        key("user", Default("\"root\""), Text, "The login name."),
        key(
            "port",
            Optional("22 for OpenSSH, 2222 for the agent"),
            Number(1, 65535),
            "The port in the task.",
        ),
        key(
            "host_key",
            Optional("`\"first-contact\"` for OpenSSH, `\"injected\"` for the agent"),
            Value::Choice(HOST_KEY),
            "How the driver knows the host key.",
        ),
    ],
};

pub(crate) static ROLE: Table = Table {
    about: "An IAM role that a task can get. Policies and job logs know its name only.",
    keys: &[
        key("arn", Required, RoleArn, "The role."),
        key(
            "privileged",
            Default("false"),
            Flag,
            "Shown to policies; `claims_taint` of a profile can keep such roles from chains that read claims.",
        ),
    ],
};

const ON_ERROR: &[Choice] = &[
    ("reject", "the job is a system failure, as always for guards"),
    ("abstain", "the policy is skipped, and the job log says so"),
];

const MODE: &[Choice] = &[
    ("enforce", "its answers count"),
    ("monitor", "it runs and is recorded, and nothing hangs on what it answers"),
];

pub(crate) static POLICY: Table = Table {
    about: "A WebAssembly component that decides, pinned by its digest. docs/policies.md has those that come with Pointsman.",
    keys: &[
        key(
            "component",
            Required,
            Text,
            "Its file, or `oci://HOST/NAME@sha256:…`, which `pointsman policy sync` fetches. A relative path is one of the settings file's directory.",
        ),
        key(
            "sha256",
            Required,
            Sha256,
            "The component's digest, as `sha256sum FILE` prints it. The driver runs no other one.",
        ),
        key(
            "settings",
            Optional("none"),
            Anything,
            "The policy's own; `pointsman policy inspect --schema FILE` prints what it takes.",
        ),
        key(
            "fuel",
            Default("200000000"),
            Number(1, 100_000_000_000),
            "What one call may compute, about one unit per instruction.",
        ),
        key("deadline", Default("\"250ms\""), Duration, "The backstop of one call."),
        key("memory", Default("\"64MiB\""), Memory, "What a call may use."),
        key(
            "on_error",
            Default("\"reject\""),
            Value::Choice(ON_ERROR),
            "What a policy that fails means.",
        ),
        key("mode", Default("\"enforce\""), Value::Choice(MODE), "Whether its answers count."),
        key(
            "wasi",
            Default("false"),
            Flag,
            "Gives a component that imports WASI one without files, network, environment and clock.",
        ),
    ],
};

const CLAIMS_TAINT: &[Choice] = &[
    ("allow", "it makes no difference"),
    (
        "deny-privileged-roles",
        "a placement with a privileged role is refused when any policy of the chain read a claim",
    ),
];

pub(crate) static PROFILE: Table = Table {
    about: "An environment: the `[[runners]]` entries of GitLab Runner's `config.toml` name it by `--profile NAME` in the arguments of all four stages.",
    keys: &[
        key(
            "tags",
            Optional("none"),
            Texts(0, MANY),
            "The tags of the runner in GitLab that uses this profile. They stand in for a job's own where GitLab is not asked.",
        ),
        key(
            "policies",
            Required,
            Texts(0, MANY),
            "Names of `[policies.*]`, in the order in which they are asked. With none, every job goes where `default` says.",
        ),
        key(
            "monitor",
            Optional("none"),
            Texts(0, MANY),
            "Those of `policies` that this profile only monitors.",
        ),
        key(
            "claims_taint",
            Default("\"allow\""),
            Value::Choice(CLAIMS_TAINT),
            "What it means that a policy has read what the pipeline's author wrote.",
        ),
        key(
            "bounds",
            Required,
            Value::Table(&BOUNDS),
            "What a placement may be, whatever a policy says.",
        ),
        key(
            "default",
            Optional("with `policies = []` what the bounds leave no choice of, else none"),
            Value::Table(&DEFAULT),
            "Where a job goes that no policy places.",
        ),
        key(
            "fargate_variables",
            Optional("none"),
            Value::Table(&FARGATE_VARIABLES),
            "What of the default pipelines may choose.",
        ),
    ],
};

const CAPACITIES: &[Choice] =
    &[("on-demand", "capacity that stays"), ("spot", "cheaper capacity that AWS can take back")];

pub(crate) static BOUNDS: Table = Table {
    about: "What is not listed is not allowed. Policies do not even see it.",
    keys: &[
        key("clusters", Required, Texts(1, MANY), "Names of `[clusters.*]`."),
        key("task_definitions", Required, Texts(1, MANY), "Names of `[task_definitions.*]`."),
        key("roles", Optional("none"), Texts(0, MANY), "Names of `[roles.*]`."),
        key("capacities", Default("[\"on-demand\"]"), Choices(CAPACITIES), "What may be chosen."),
        key("max_cpu", Required, Cpu, "The most vCPUs of a task."),
        key("max_memory", Required, Memory, "The most memory of a task."),
        key(
            "max_ephemeral_storage",
            Default("\"20GiB\""),
            Storage,
            "The most disk of a task: `\"20GiB\"`, which Fargate gives without asking, to `\"200GiB\"`.",
        ),
    ],
};

const ARCH: &[Choice] = &[("x86_64", "x86"), ("arm64", "ARM")];

pub(crate) static DEFAULT: Table = Table {
    about: "Where a job goes that no policy places, within the bounds: with `policies = []`, every job. docs/migration.md has an example.",
    keys: &[
        key(
            "cluster",
            Optional("the only one that the bounds allow"),
            Text,
            "One of the bounds' clusters.",
        ),
        key(
            "task_definition",
            Optional("the only one that the bounds allow"),
            Text,
            "One of the bounds' task definitions.",
        ),
        key(
            "arch",
            Optional("the only one that the task definition has"),
            Value::Choice(ARCH),
            "One that the task definition has.",
        ),
        key(
            "capacity",
            Optional("the only one that the bounds allow"),
            Value::Choice(CAPACITIES),
            "One of the bounds' capacities.",
        ),
        key("role", Optional("the task definition's"), Text, "One of the bounds' roles."),
    ],
};

pub(crate) static FARGATE_VARIABLES: Table = Table {
    about: "The variables of GitLab's Fargate driver by which a pipeline chooses. What is not listed here, it cannot.",
    keys: &[
        key(
            "task_definitions",
            Optional("`FARGATE_TASK_DEFINITION` is ignored"),
            Texts(0, MANY),
            "What `FARGATE_TASK_DEFINITION` may name: task definitions of the bounds.",
        ),
        key(
            "clusters",
            Optional("`FARGATE_PLATFORM_VERSION` is ignored"),
            Texts(0, MANY),
            "What `FARGATE_PLATFORM_VERSION` may name: clusters of the bounds, by their `platform_version`.",
        ),
    ],
};
