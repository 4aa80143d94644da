"""How little the order of a user's items says: which share of the users training may shuffle.

Counts answer before anything is trained. Were a share s of the users shuffled, what stands behind an item would be
1 - s parts of what came after it, the nearer the more, and s parts of all that its takers took, wherever it stood. The
share that makes validation targets likeliest by such counts is the one a network should be shown.

Shapes: T targets, D distances.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from peso.config import MemoryConfig
from peso.data.dataset import Dataset
from peso.data.examples import items_taken_before, known_events
from peso.memory.choice import STRENGTHS, is_clear, targets_to_choose_by
from peso.memory.evidence import AFTER, gather_item_evidence
from peso.memory.mixture import mixed_log_probabilities
from peso.memory.neighbours import FloatArray
from peso.memory.weights import PLACES, falling

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
"""What is chosen from; some users always stay in order, as lists will be asked for in order."""

_LAG_RATIOS = (0.2, 0.4, 0.6, 0.8, 0.9)
_DISTANCE_RATIOS = (0.3, 0.5, 0.7, 0.85, 0.95)
_BLOCK = 0


def share_to_shuffle(dataset: Dataset) -> float:
    """The least share of `SHARES` that is as good as any, by the validation targets of block 0.

    Args:
        dataset: of which block 0 is read and no other.

    Returns:
        A share whose likelihood is within twice the standard error of the best one's; 0 without validation targets.
    """
    targets = targets_to_choose_by(dataset, _BLOCK)
    if not len(targets):
        return 0.0
    items, histories = dataset.event_item[targets], items_taken_before(dataset, targets)
    evidence, by_model = gather_item_evidence(dataset, known_events(dataset, _BLOCK), histories, items, MemoryConfig())
    by_lag = [np.tensordot(evidence.counts, falling(ratio), axes=(2, 0)) for ratio in _LAG_RATIOS]
    likelihoods = {share: _best_log_likelihoods(by_lag, by_model, share) for share in SHARES}
    best = max(likelihoods.values(), key=lambda of_share: float(of_share.mean()))
    return next(share for share, of_share in likelihoods.items() if not is_clear(best - of_share))


def _best_log_likelihoods(by_lag: Sequence[FloatArray], by_model: FloatArray, share: float) -> FloatArray:
    """Of each target, with the places, distances and strength that are best for the share; float64 [T], in nats.

    Args:
        by_lag: float64 [T, 2, D, 2] each: counts, summed over places by different weights.
        by_model: float64 [T, 1].
        share: of the users, as if it were shuffled.
    """
    candidates = (
        mixed_log_probabilities(found[:, :1], found[:, 1:], by_model, strength, 0.0)[:, 0]
        for counts, by_kind in product(by_lag, _kinds(share))
        for found in (np.tensordot(counts, by_kind),)
        for strength in STRENGTHS[::2]
    )
    return max(candidates, key=lambda likelihoods: float(likelihoods.mean()))


def _kinds(share: float) -> Iterator[FloatArray]:
    """How much pairs of each distance and direction count, float64 [D, 2], if a share of the users is shuffled."""
    for ratio in _DISTANCE_RATIOS:
        in_order = np.array(falling(ratio))
        by_kind = np.full((PLACES, 2), share * in_order.sum() / (2 * PLACES))
        by_kind[:, AFTER] += (1 - share) * in_order
        yield by_kind
