"""What the host calls, and what it answers. The decision itself is in decide.py.

`wit_world` is made of wit/ by componentize-py; `componentize-py -d wit -w placement-policy bindings .` writes it
for an editor's eyes.
"""

import json
from typing import List

from wit_world import exports
from wit_world.imports import catalog, facts, types

import decide


def word(value) -> str:
    """`SPOT_INTERRUPTION` as wit/policy.wit spells it."""
    return value.name.lower().replace("_", "-")


class Job:
    def protected(self):
        return facts.get_ref().protected

    def earlier_failures(self):
        return [word(failure.kind) for failure in facts.earlier_failures()]

    def task_definitions(self):
        return [
            (definition.name, [word(arch) for arch in definition.archs])
            for definition in catalog.task_definitions()
        ]

    def capacities(self):
        return [word(capacity) for capacity in catalog.get_limits().capacities]


class Lifecycle(exports.Lifecycle):
    def describe(self) -> types.Metadata:
        return types.Metadata(
            name="@NAME@",
            version="0.1.0",
            description="Spot for jobs that may be lost, on-demand for the others",
            settings_schema=None,
            extra=[],
        )

    def validate_settings(self, settings: str) -> List[types.SettingProblem]:
        return [
            types.SettingProblem(path, message)
            for path, message in decide.problems(json.loads(settings))
        ]


class Placer(exports.Placer):
    def place(self, settings: str) -> types.Decision:
        decision = decide.decide(json.loads(settings), Job())
        if isinstance(decision, decide.Reject):
            return types.Decision_Reject(
                types.Rejection(decision.code, decision.message, decision.hint)
            )
        return types.Decision_Place(
            [
                types.Placement(
                    cluster=decision.cluster,
                    task_definition=decision.task_definition,
                    arch=catalog.Arch[decision.arch.upper().replace("-", "_")],
                    capacity=catalog.Capacity[decision.capacity.upper().replace("-", "_")],
                    cpu_units=None,
                    memory_mib=None,
                    ephemeral_storage_gib=None,
                    role=None,
                    labels=[],
                    extra=[],
                    reason=decision.reason,
                )
            ]
        )
