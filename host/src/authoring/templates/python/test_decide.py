"""`python3 -m unittest` runs these: no component, no host."""

import unittest
from types import SimpleNamespace

from decide import Place, Reject, decide, problems

SETTINGS = {"cluster": "ci", "task_definition": "node"}


def job(protected=False, failures=(), definitions=(("node", ["x86-64", "arm64"]),)):
    return SimpleNamespace(
        protected=lambda: protected,
        earlier_failures=lambda: list(failures),
        task_definitions=lambda: list(definitions),
        capacities=lambda: ["on-demand", "spot"],
    )


class Decisions(unittest.TestCase):
    def capacity(self, **changes):
        decision = decide(SETTINGS, job(**changes))
        self.assertIsInstance(decision, Place)
        return decision.capacity

    def test_a_job_that_may_be_lost_runs_on_spot(self):
        self.assertEqual(self.capacity(), "spot")

    def test_a_protected_ref_runs_on_demand(self):
        self.assertEqual(self.capacity(protected=True), "on-demand")
        self.assertEqual(self.capacity(protected=None), "spot")

    def test_after_an_interruption_a_job_runs_on_demand(self):
        self.assertEqual(self.capacity(failures=["spot-interruption"]), "on-demand")

    def test_a_task_definition_that_is_not_offered_is_refused(self):
        decision = decide(SETTINGS, job(definitions=()))
        self.assertIsInstance(decision, Reject)
        self.assertEqual(decision.code, "no-task-definition")

    def test_all_mistakes_of_the_settings_are_told(self):
        paths = [path for path, _ in problems({"clutser": "ci", "spot": 1})]
        self.assertEqual(paths, ["clutser", "cluster", "task_definition", "spot"])


if __name__ == "__main__":
    unittest.main()
