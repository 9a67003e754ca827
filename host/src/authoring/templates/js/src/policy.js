// What the host calls, and what it answers. The decision itself is in decide.js.

import { earlierFailures, getRef } from "pointsman:policy/facts@0.1.0";
import { getLimits, taskDefinitions } from "pointsman:policy/catalog@0.1.0";
import { decide, problems } from "./decide.js";

export const lifecycle = {
  describe() {
    return {
      name: "@NAME@",
      version: "0.1.0",
      description: "Spot for jobs that may be lost, on-demand for the others",
      settingsSchema: undefined,
      extra: [],
    };
  },
  validateSettings(settings) {
    return problems(JSON.parse(settings));
  },
};

export const placer = {
  place(settings) {
    return decide(JSON.parse(settings), {
      gitRef: getRef,
      earlierFailures,
      taskDefinitions,
      limits: getLimits,
    });
  },
};
