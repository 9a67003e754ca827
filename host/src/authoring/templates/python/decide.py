"""What this policy decides. No host in here, so that its tests need nothing but Python.

`job` is what the host vouches for: in the component policy.py's, in tests a plain object. Ask it only for what
the decision needs, since each reading is recorded.
"""

from dataclasses import dataclass
from typing import List, Optional, Tuple, Union

KNOWN = ["cluster", "task_definition", "spot"]


@dataclass
class Place:
    cluster: str
    task_definition: str
    arch: str
    capacity: str
    reason: str


@dataclass
class Reject:
    code: str
    message: str
    hint: Optional[str]


def problems(settings: object) -> List[Tuple[str, str]]:
    """Everything that is wrong with the settings: paths and messages."""
    if not isinstance(settings, dict):
        return [("", "expected a table")]
    found = [
        (key, f"is unknown, expected one of {', '.join(KNOWN)}")
        for key in settings
        if key not in KNOWN
    ]
    for key in ("cluster", "task_definition"):
        if not isinstance(settings.get(key), str) or settings[key] == "":
            found.append((key, "is missing, or no text in quotes"))
    if not isinstance(settings.get("spot", True), bool):
        found.append(("spot", "expected true or false"))
    return found


def decide(settings: dict, job) -> Union[Place, Reject]:
    """Spot for jobs that may be lost; on-demand on protected refs and after an interruption."""
    wanted = settings["task_definition"]
    archs = {name: archs for name, archs in job.task_definitions()}.get(wanted)
    if archs is None:
        return Reject(
            code="no-task-definition",
            message=f"the profile offers no task definition `{wanted}`",
            hint="an operator can add it to the profile's bounds",
        )
    protected = job.protected()
    interrupted = any(kind in ("spot-interruption", "capacity") for kind in job.earlier_failures())
    capacity, reason = "spot", "may be lost: Spot"
    if settings.get("spot") is False or "spot" not in job.capacities():
        capacity, reason = "on-demand", "Spot is off here"
    elif protected is True:
        capacity, reason = "on-demand", "a protected ref"
    elif interrupted:
        capacity, reason = "on-demand", "an attempt on Spot was interrupted"
    return Place(
        cluster=settings["cluster"],
        task_definition=wanted,
        arch="x86-64" if "x86-64" in archs else "arm64",
        capacity=capacity,
        reason=reason,
    )
