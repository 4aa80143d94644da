"""What does it gain that each pass shows training targets in another order, or leaves some out?"""

from typing import Any

from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.memory.order import share_to_shuffle
from peso.studies.claims import run_tests
from peso.studies.findings import Findings, Study, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import BOTH_PROTOCOLS, SECONDS, VALID_LOSS
from peso.studies.methods_compared import OURS, REFERENCE, method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome

DROPPED_SHARE = 0.3
FEWER_PASSES, FEWER_PASSES_LATER = 10, 4
"""Over block 0 and over later ones: what training in order was tuned to on Video Games, before there was another."""

AS_CONFIGURED = ""
IN_ORDER, IN_ORDER_FEWER, DROPOUT = "in order", "in order, fewer passes", f"item dropout {DROPPED_SHARE:g}"


def plan_augmentation(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA and PESO as configured, in order, in order with fewer passes, and with item dropout."""
    in_order: dict[str, Any] = {"training": {"shuffled_share": 0.0, "item_dropout": 0.0}}
    kinds: dict[str, dict[str, Any]] = {
        AS_CONFIGURED: {},
        IN_ORDER: in_order,
        IN_ORDER_FEWER: {
            "backbone": {"epochs": FEWER_PASSES},
            "training": in_order["training"] | {"epochs": FEWER_PASSES_LATER},
        },
        DROPOUT: {"training": in_order["training"] | {"item_dropout": DROPPED_SHARE}},
    }
    arms = [
        Arm(_name(method, kind), method_arm(method, **overrides).overrides)
        for method in (REFERENCE, OURS)
        for kind, overrides in kinds.items()
    ]
    pairs = [
        Pair(method, _name(method, kind), "as configured against others")
        for method in (REFERENCE, OURS)
        for kind in (IN_ORDER, IN_ORDER_FEWER, DROPOUT)
    ]
    pairs += [Pair(_name(OURS, kind), _name(REFERENCE, kind), "peso against single, trained alike") for kind in kinds]
    training = config.training
    share = share_to_shuffle(dataset) if training.shuffled_share == "auto" else training.shuffled_share
    notes = [
        f"As configured: {share:.0%} of the users in another order in each pass, "
        f"{config.backbone.epochs} passes over block 0 and {training.epochs} over later ones; of all passes over a "
        "block the one with the best validation loss is kept.",
        f"{IN_ORDER_FEWER}: {FEWER_PASSES} and {FEWER_PASSES_LATER}.",
        f"{DROPOUT}: in order, each pass leaves out {DROPPED_SHARE:.0%} of all events.",
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


AUGMENTATION = Study(
    "augmentation",
    "What does it gain that each pass shows training targets in another order, or leaves some out?",
    plan_augmentation,
    present,
)
