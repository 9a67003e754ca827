// What this policy decides. No host in here, so that `npm test` needs nothing but Node.js.

/** @typedef {import("../types/policy").Placement} Placement */
/** @typedef {import("../types/policy").Decision} Decision */

/**
 * Everything that is wrong with the settings, each with its path.
 * @param {unknown} settings `[policies.<name>.settings]` of the driver's file
 * @returns {import("../types/policy").SettingProblem[]}
 */
export function problems(settings) {
  if (typeof settings !== "object" || settings === null || Array.isArray(settings)) {
    return [{ path: "", message: "expected a table" }];
  }
  const known = ["cluster", "task_definition", "spot"];
  const found = [];
  for (const key of Object.keys(settings)) {
    if (!known.includes(key)) {
      found.push({ path: key, message: `is unknown, expected one of ${known.join(", ")}` });
    }
  }
  for (const key of ["cluster", "task_definition"]) {
    if (typeof settings[key] !== "string" || settings[key] === "") {
      found.push({ path: key, message: "is missing, or no text in quotes" });
    }
  }
  if (settings.spot !== undefined && typeof settings.spot !== "boolean") {
    found.push({ path: "spot", message: "expected true or false" });
  }
  return found;
}

/**
 * Spot for jobs that may be lost; on-demand on protected refs and after an interruption.
 * @param {import("../types/policy").Settings} settings already checked by `problems`
 * @param {import("../types/policy").Job} job what the host vouches for; ask only for what you need
 * @returns {Decision}
 */
export function decide(settings, job) {
  const definition = job.taskDefinitions().find(({ name }) => name === settings.task_definition);
  if (definition === undefined) {
    return {
      tag: "reject",
      val: {
        code: "no-task-definition",
        message: `the profile offers no task definition \`${settings.task_definition}\``,
        hint: "an operator can add it to the profile's bounds",
      },
    };
  }
  const ref = job.gitRef();
  const interrupted = job
    .earlierFailures()
    .some(({ kind }) => kind === "spot-interruption" || kind === "capacity");
  let reason = "may be lost: Spot";
  let capacity = "spot";
  if (settings.spot === false || !job.limits().capacities.includes("spot")) {
    [capacity, reason] = ["on-demand", "Spot is off here"];
  } else if (ref.protected === true) {
    [capacity, reason] = ["on-demand", "a protected ref"];
  } else if (interrupted) {
    [capacity, reason] = ["on-demand", "an attempt on Spot was interrupted"];
  }
  return {
    tag: "place",
    val: [
      {
        cluster: settings.cluster,
        taskDefinition: settings.task_definition,
        arch: definition.archs.includes("x86-64") ? "x86-64" : "arm64",
        capacity,
        labels: [],
        extra: [],
        reason,
      },
    ],
  };
}
