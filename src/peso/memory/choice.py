"""Which weights of a memory make some targets likeliest: one part after the other, never far from what is usual.

A part leaves what it was for what makes the targets likeliest, if they gain more than twice the standard error of that
gain: few targets, or targets that hardly tell, leave everything as is usual. The strengths of the levels follow every
other part: each is the best for the rest.

How pairs count is chosen without a model: an item is one code there, and its share of the known events stands in the
model's place. Beside a model the likelihood hardly depends on it, since the model answers where counts do not; lists
do, for their first places are those of the counts. So every model of a block has the same counts beside it.

Shapes: T targets, M levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from peso.config import MemoryConfig
from peso.data.dataset import Dataset, IntArray
from peso.data.examples import targets_of_block
from peso.memory.evidence import Evidence, gather_item_evidence
from peso.memory.mixture import mixed_log_probabilities
from peso.memory.neighbours import FloatArray
from peso.memory.weights import MemoryWeights, falling, usual_weights

STRENGTHS = np.geomspace(0.05, 2000, 33)
"""What a level's strength is chosen from: 1.4 times from one to the next."""

CONTENT_WEIGHTS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)
LAG_RATIOS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DISTANCE_RATIOS = (0.5, 0.6, 0.7, 0.85, 0.95)
BACKWARD = (0.1, 0.25, 0.5, 0.75, 1.0)
"""What the others are chosen from; ratios by which weights fall."""

Grids = Mapping[str, Sequence[Any]]
COUNTING: Grids = {
    "lag_weights": tuple(map(falling, LAG_RATIOS)),
    "distance_weights": tuple(map(falling, DISTANCE_RATIOS)),
    "backward": BACKWARD,
}
CONTENT: Grids = {"content_weight": CONTENT_WEIGHTS}

MOST_TARGETS = 5000
"""What a choice rests on, at most."""

_ROUNDS = 2


def targets_to_choose_by(dataset: Dataset, block: int) -> IntArray:
    """The block's validation targets, or as many as a choice needs, spread evenly over its users; int64, increasing."""
    targets = targets_of_block(dataset, block, "valid")
    if len(targets) <= MOST_TARGETS:
        return targets
    return targets[np.linspace(0, len(targets) - 1, MOST_TARGETS).astype(np.int64)]


def chosen_counting(
    dataset: Dataset, events: IntArray, histories: Sequence[IntArray], items: IntArray, config: MemoryConfig
) -> MemoryWeights:
    """How pairs count, by what counts alone say of some targets.

    Args:
        dataset: the events.
        events: event indices that may be known, int64, ascending.
        histories: per target; of none, everything is as is usual.
        items: int64 [T], the targets' items.
        config: what is open, and what is fixed.

    Returns:
        Weights of a memory without content in which an item is one code.
    """
    alone = config.model_copy(update={"strength": "auto", "content_weight": 0.0, "prefix_power": 0.0})
    usual = usual_weights(alone, num_levels=1, has_content=False)
    evidence, by_share = gather_item_evidence(dataset, events, histories, items, alone)
    return chosen_weights(evidence, by_share, alone, usual, COUNTING)


def chosen_weights(
    evidence: Evidence, by_model: FloatArray, config: MemoryConfig, start: MemoryWeights, grids: Grids
) -> MemoryWeights:
    """The weights for some targets; what the configuration fixes stays, and so does what no grid is given for.

    Args:
        evidence: of the targets; of none, everything stays.
        by_model: float64 [T, M], the model's log-probability of each code in nats.
        config: what is open, and what is fixed.
        start: what is usual.
        grids: what each part is chosen from; strengths have their own.
    """
    if not len(by_model):
        return start
    best, likelihoods = _with_strengths(evidence, by_model, config, start)
    for _ in range(_ROUNDS):
        for part, values in grids.items():
            if getattr(config, part) != "auto":
                continue
            candidates = [
                _with_strengths(evidence, by_model, config, replace(best, **{part: value})) for value in values
            ]
            likeliest, theirs = max(candidates, key=lambda candidate: float(candidate[1].mean()))
            if is_clear(theirs - likelihoods):
                best, likelihoods = likeliest, theirs
    return best


def _with_strengths(
    evidence: Evidence, by_model: FloatArray, config: MemoryConfig, weights: MemoryWeights
) -> tuple[MemoryWeights, FloatArray]:
    """The weights with the best strength of each level, and the targets' log-likelihoods, float64 [T]."""
    counts = evidence.remembered(weights)
    options = STRENGTHS if config.strength == "auto" else np.array(weights.strengths[:1])
    by_code = np.stack(
        [
            mixed_log_probabilities(counts[:, :-1], counts[:, 1:], by_model, strength, config.prefix_power)
            for strength in options
        ]
    )
    chosen = by_code.mean(1).argmax(0)
    strengths = tuple(float(strength) for strength in options[chosen])
    likelihoods = by_code[chosen, :, np.arange(len(chosen))].sum(0)
    return replace(weights, strengths=strengths), np.asarray(likelihoods)


def is_clear(gains: FloatArray) -> bool:
    """Whether the mean is above twice its standard error; of one target it has none."""
    return len(gains) > 1 and bool(gains.mean() > 2 * gains.std(ddof=1) / np.sqrt(len(gains)))
