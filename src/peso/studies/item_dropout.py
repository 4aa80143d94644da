"""What does it gain that each pass leaves out some events, and does the anchor still gain beside it?"""

import math
from typing import Any

from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.studies.claims import run_tests
from peso.studies.findings import Findings, Study, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import BOTH_PROTOCOLS, SECONDS, VALID_LOSS
from peso.studies.methods_compared import OURS, REFERENCE, method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome

SHARE = 0.3
PASSES = "as many passes"
DROPOUT = f"item dropout {SHARE:g}"


def plan_item_dropout(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA and PESO as configured, with dropout, and with as many passes without it."""
    more = 1 / (1 - SHARE)
    longer: dict[str, Any] = {
        "backbone": {"epochs": math.floor(config.backbone.epochs * more)},
        "training": {"epochs": math.ceil(config.training.epochs * more)},
    }
    kinds = {
        "": {},
        PASSES: longer,
        DROPOUT: longer | {"training": longer["training"] | {"item_dropout": SHARE}},
    }
    arms = [
        Arm(_name(method, kind), method_arm(method, **overrides).overrides)
        for method in (REFERENCE, OURS)
        for kind, overrides in kinds.items()
    ]
    pairs = []
    for method in (REFERENCE, OURS):
        pairs += [Pair(_name(method, DROPOUT), method, "against the configuration without")]
        pairs += [Pair(_name(method, DROPOUT), _name(method, PASSES), "against as many passes without")]
    pairs += [Pair(_name(OURS, kind), _name(REFERENCE, kind), "equal training") for kind in kinds]
    passes = f"{longer['backbone']['epochs']} passes over block 0 and {longer['training']['epochs']} over later ones"
    notes = [
        f"{DROPOUT}: each pass leaves out {SHARE:.0%} of all events, in the training of the backbone and in every "
        f"update, in {passes}, so that about as many targets are shown as without ({config.backbone.epochs} and "
        f"{config.training.epochs}).",
        f"{PASSES}: those passes without dropout; of all passes the one with the best validation loss is kept.",
    ]
    return Plan(arms, pairs, is_next_block_listed=True, notes=notes, references=[OURS])


def _name(method: str, kind: str) -> str:
    return f"{method}, {kind}" if kind else method


def present(outcome: Outcome) -> Findings:
    """The numbers and the tests."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, BOTH_PROTOCOLS)
    return Findings(
        [arm_table(outcome, BOTH_PROTOCOLS, (VALID_LOSS, SECONDS))],
        tests,
        forest_of(tests, lambda test: f"{test.pair.ours} - {test.pair.theirs}"),
        "Differences; filled where they may be claimed after correction.",
    )


ITEM_DROPOUT = Study(
    "item_dropout", "What does it gain that each pass leaves out some events?", plan_item_dropout, present
)
