"""How many users may each pass shuffle, and do counts know it before anything is trained?"""

import math
from collections.abc import Mapping
from typing import Any

from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.experiments.frontier import curves_picture
from peso.memory.order import SHARES, share_to_shuffle
from peso.studies.claims import run_tests
from peso.studies.curves import curve_points, frontier_axes
from peso.studies.findings import Findings, Study, arm_table
from peso.studies.measures import BOTH_PROTOCOLS, NDCG, NEXT_BLOCK, VALID_LOSS
from peso.studies.methods_compared import OURS, method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome

IN_ORDER, FEWER_PASSES = "in order", "in order, fewer passes"
CURVE, CHOSEN = "shuffled", "chosen by counts"


def plan_shares(config: RunConfig, dataset: Dataset) -> Plan:
    """PESO at every share that counts choose from, and in order with fewer passes; the rest as configured."""
    chosen = share_to_shuffle(dataset)
    shares = {_name(share, share == chosen): share for share in SHARES}
    arms = [_arm(name, config.training.epochs, share) for name, share in shares.items()]
    passes, later_passes = (math.ceil(epochs / 2) for epochs in (config.backbone.epochs, config.training.epochs))
    arms.append(_arm(FEWER_PASSES, later_passes, 0.0, backbone={"epochs": passes}))
    in_order, best = arms[0].name, _name(chosen, is_chosen=True)
    pairs = [Pair(arm.name, in_order, f"against {IN_ORDER}") for arm in arms[1:]]
    pairs += [Pair(best, FEWER_PASSES, f"against {FEWER_PASSES}")]
    curve = {name: share for name, share in shares.items() if share > 0}
    notes = [
        "Training shows that share of the users in another order in each pass, on block 0 and on later ones.",
        f"Counts choose {chosen:g}, from block 0 alone.",
        f"{FEWER_PASSES}: {passes} over block 0 and {later_passes} over later ones instead of {config.backbone.epochs} "
        f"and {config.training.epochs}; of all passes over a block the one with the best validation loss is kept.",
    ]
    return Plan(arms, pairs, {CURVE: curve}, is_next_block_listed=True, notes=notes, references=[in_order])


def _arm(name: str, epochs: int, share: float, **overrides: Any) -> Arm:
    training = {"epochs": epochs, "shuffled_share": share}
    return Arm(name, method_arm(OURS, training=training, **overrides).overrides)


def _name(share: float, is_chosen: bool) -> str:
    name = f"{CURVE} {share:g}" if share > 0 else IN_ORDER
    return f"{name}, {CHOSEN}" if is_chosen else name


def present(outcome: Outcome) -> Findings:
    """Every measure over the share; the chosen one is ringed."""
    names: Mapping[str, float] = outcome.plan.curves[CURVE]
    (in_order,) = outcome.plan.references
    star = (in_order, curve_points(outcome, {in_order: 0.0}, BOTH_PROTOCOLS)[0])
    ringed = [(CURVE, share) for name, share in names.items() if name.endswith(CHOSEN)]
    panels = [(measure.key, measure.label) for measure in (NDCG, NEXT_BLOCK)]
    curves = {CURVE: curve_points(outcome, names, BOTH_PROTOCOLS)}
    return Findings(
        [arm_table(outcome, BOTH_PROTOCOLS, (VALID_LOSS,))],
        run_tests(outcome.variants, outcome.plan.pairs, BOTH_PROTOCOLS),
        curves_picture(curves, panels, frontier_axes(), "share that is shuffled", star, ringed, "linear"),
        "Over the share of the users that is shuffled; right: fit of this block against the next block's likelihood, "
        f"larger dots for larger shares, {CHOSEN} ringed. Dotted line and star: {IN_ORDER}.",
    )


ORDER = Study("order", "How many users may each pass shuffle, and do counts know it beforehand?", plan_shares, present)
