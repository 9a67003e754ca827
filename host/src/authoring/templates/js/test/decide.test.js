import assert from "node:assert/strict";
import { test } from "node:test";
import { decide, problems } from "../src/decide.js";

const settings = { cluster: "ci", task_definition: "node" };

function job(changes = {}) {
  return {
    gitRef: () => ({ name: "feature", kind: "branch", sha: "0".repeat(40), protected: false }),
    earlierFailures: () => [],
    taskDefinitions: () => [
      { name: "node", archs: ["x86-64", "arm64"], cpuUnits: 1024, memoryMib: 2048, labels: [] },
    ],
    limits: () => ({ capacities: ["on-demand", "spot"] }),
    ...changes,
  };
}

function capacity(changes) {
  const decision = decide(settings, job(changes));
  assert.equal(decision.tag, "place");
  return decision.val[0].capacity;
}

test("a job that may be lost runs on Spot", () => {
  assert.equal(capacity({}), "spot");
});

test("a protected ref runs on demand, one without the flag does not count as protected", () => {
  assert.equal(capacity({ gitRef: () => ({ name: "main", protected: true }) }), "on-demand");
  assert.equal(capacity({ gitRef: () => ({ name: "main" }) }), "spot");
});

test("after an interruption a job runs on demand", () => {
  const failure = { attempt: 1, kind: "spot-interruption", detail: "" };
  assert.equal(capacity({ earlierFailures: () => [failure] }), "on-demand");
});

test("a task definition that is not offered is refused", () => {
  const decision = decide(settings, job({ taskDefinitions: () => [] }));
  assert.equal(decision.tag, "reject");
  assert.equal(decision.val.code, "no-task-definition");
});

test("all mistakes of the settings are told", () => {
  const paths = problems({ clutser: "ci", spot: 1 }).map(({ path }) => path);
  assert.deepEqual(paths, ["clutser", "cluster", "task_definition", "spot"]);
});
