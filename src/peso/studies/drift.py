"""Worlds whose drift is known: when does an anchor help?"""

from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.data.simulate import SimulationSettings
from peso.errors import DataError
from peso.studies.claims import run_tests
from peso.studies.curves import MEASURES
from peso.studies.findings import Findings, Study, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import DISTANCE
from peso.studies.methods_compared import method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome

LEAST_USERS, LEAST_ITEMS, LEAST_BLOCKS = 10, 20, 2
METHODS = ("frozen", "single", "peso")
CHANGES: dict[str, dict[str, float]] = {
    "default": {},
    "no drift": {"drift": 0.0},
    "strong drift": {"drift": 2.0},
    "all lasting": {"lasting_share": 1.0},
    "all drifting": {"lasting_share": 0.0},
    "nobody dormant": {"dormant_share": 0.0},
    "half dormant": {"dormant_share": 0.5},
    "no new items": {"later_item_share": 0.0},
    "mostly new items": {"later_item_share": 0.7},
}
"""Name of each world, and how its settings differ from the defaults of the simulation."""


def plan_worlds(config: RunConfig, dataset: Dataset) -> Plan:
    """Frozen, single and PESO in every world; worlds have as many users, items and blocks as the workspace's data.

    Raises:
        DataError: the workspace is smaller than any simulated world with an update.
    """
    size = {"num_users": dataset.num_users, "num_items": dataset.num_items, "num_blocks": dataset.num_blocks}
    if dataset.num_users < LEAST_USERS or dataset.num_items < LEAST_ITEMS or dataset.num_blocks < LEAST_BLOCKS:
        raise DataError(
            f"study drift simulates worlds of the workspace's size, {dataset.num_users} users, {dataset.num_items} "
            f"items and {dataset.num_blocks} blocks; use one with at least {LEAST_USERS}, {LEAST_ITEMS} and "
            f"{LEAST_BLOCKS}."
        )
    worlds = {name: SimulationSettings.model_validate(size | change) for name, change in CHANGES.items()}
    arms = [Arm(f"{name}: {method}", method_arm(method).overrides, name) for name in worlds for method in METHODS]
    pairs = [Pair(f"{name}: peso", f"{name}: single", "peso against single, every world") for name in worlds]
    notes = ["Each world differs from the default one in one setting; likelihoods of different worlds do not compare."]
    return Plan(arms, pairs, worlds=worlds, notes=notes, references=[f"{name}: single" for name in worlds])


def present(outcome: Outcome) -> Findings:
    """The table, and what the anchor gains in each world."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, MEASURES)
    return Findings(
        [arm_table(outcome, MEASURES, (DISTANCE,))],
        tests,
        forest_of(tests, lambda test: test.pair.ours.removesuffix(": peso")),
        "peso - single in each world; filled where a difference may be claimed after correction.",
    )


DRIFT = Study("drift", "In what kind of world does an anchor help?", plan_worlds, present)
