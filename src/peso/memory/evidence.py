"""What counts say of some targets, kept apart by place, distance and direction, so that any weights are tried at once.

Shapes: T targets, M levels, L places in a history, D distances, N items, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peso.config import MemoryConfig
from peso.data.dataset import Dataset, IntArray
from peso.data.examples import has_repeats
from peso.memory.neighbours import FloatArray, Neighbours, discounts, pairs_apart
from peso.memory.weights import MemoryWeights, usual_weights

AFTER, BEFORE = 0, 1
"""Directions: an item that came after, one that came before."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What stood near the items of each target's history, and is like them.

    Attributes:
        counts: float64 [T, M + 1, L, D, 2]: of pairs whose item shares the target's first m codes, m from 0 to M.
        content: float64 [T, M + 1, L], of items of like content; None where items have no vectors.
    """

    counts: FloatArray
    content: FloatArray | None

    def remembered(self, weights: MemoryWeights) -> FloatArray:
        """C of every prefix of each target, the empty one first; float64 [T, M + 1]."""
        lags = np.asarray(weights.lag_weights)
        by_kind = np.outer(weights.distance_weights, (1.0, weights.backward))
        found = np.einsum("tmldb,l,db->tm", self.counts, lags, by_kind, optimize=True)
        if self.content is not None:
            found = found + weights.content_weight * (self.content @ lags)
        return np.asarray(found)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Neighbours of which each is of one of several kinds."""

    near: Neighbours
    kinds: IntArray
    num_kinds: int


def gather_evidence(
    dataset: Dataset,
    events: IntArray,
    codes: IntArray,
    histories: Sequence[IntArray],
    items: IntArray,
    config: MemoryConfig,
    start: MemoryWeights,
    has_repeats: bool,
    similar: Neighbours | None = None,
) -> Evidence:
    """What some events say of some targets.

    Args:
        dataset: the events.
        events: event indices that may be known, int64, ascending.
        codes: int64 [N, M], the items' codes.
        histories: per target, oldest first.
        items: int64 [T], the targets' items.
        config: decay and discount.
        start: its weights have L places and D distances.
        has_repeats: whether users take items again; otherwise what a history holds is left out.
        similar: what is like what.
    """
    num_lags, num_distances = len(start.lag_weights), len(start.distance_weights)
    recent = [history[::-1][:num_lags] for history in histories]
    is_source = np.zeros(dataset.num_items, dtype=bool)
    is_source[np.concatenate([np.empty(0, dtype=np.int64), *recent])] = True
    pairs = _pairs_of(dataset, events, is_source, num_distances, config.decay, config.discount)
    excluded = None if has_repeats else histories
    counts = _by_prefix(pairs, codes, recent, items, num_lags, excluded)
    content = None
    if similar is not None:
        alike = _Pairs(similar, np.zeros(len(similar.items), dtype=np.int64), 1)
        content = _by_prefix(alike, codes, recent, items, num_lags, excluded)[..., 0]
    shape = (*counts.shape[:-1], num_distances, 2)
    return Evidence(counts.reshape(shape), content)


def gather_item_evidence(
    dataset: Dataset, events: IntArray, histories: Sequence[IntArray], items: IntArray, config: MemoryConfig
) -> tuple[Evidence, FloatArray]:
    """The same where an item is one code, without content, and what stands in a model's place there.

    Args:
        dataset: the events.
        events: event indices that may be known, int64, ascending.
        histories: per target, oldest first.
        items: int64 [T], the targets' items.
        config: decay, discount and places.

    Returns:
        The evidence, M = 1; and the log-share of the known events that each target's item has, float64 [T, 1].
    """
    start = usual_weights(config, num_levels=1, has_content=False)
    codes = np.arange(dataset.num_items)[:, None]
    evidence = gather_evidence(dataset, events, codes, histories, items, config, start, has_repeats(dataset))
    num_taken = np.bincount(dataset.event_item[events], minlength=dataset.num_items) + 1.0
    return evidence, np.log(num_taken / num_taken.sum())[items][:, None]


def _pairs_of(
    dataset: Dataset, events: IntArray, is_source: np.ndarray, num_distances: int, decay: float, discount: float
) -> _Pairs:
    """Pairs of some sources; kinds are 2 (distance - 1) + direction."""
    keys, weights = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    num_kinds = 2 * num_distances
    for number, (before, after, ages) in enumerate(pairs_apart(dataset, events, num_distances, decay)):
        for direction, source, other in ((AFTER, before, after), (BEFORE, after, before)):
            asked = is_source[source]
            kind = 2 * number + direction
            keys.append((source[asked] * dataset.num_items + other[asked]) * num_kinds + kind)
            weights.append(ages[asked])
    distinct, place = np.unique(np.concatenate(keys), return_inverse=True)
    counts = np.bincount(place, np.concatenate(weights), len(distinct)).astype(np.float64)
    both, kinds = np.divmod(distinct, num_kinds)
    sources, others = np.divmod(both, dataset.num_items)
    offsets = np.searchsorted(sources, np.arange(dataset.num_items + 1)).astype(np.int64)
    near = Neighbours(offsets, others, counts * discounts(dataset, events, discount)[sources])
    return _Pairs(near, kinds, num_kinds)


def _by_prefix(
    pairs: _Pairs,
    codes: IntArray,
    recent: Sequence[IntArray],
    items: IntArray,
    num_lags: int,
    excluded: Sequence[IntArray] | None,
) -> FloatArray:
    """float64 [T, M + 1, L, kinds]: weights of each target's pairs by how many codes they share with its item."""
    near, shape = pairs.near, (codes.shape[1] + 1, num_lags, pairs.num_kinds)
    found = np.zeros((len(items), *shape))
    for row, (sources, item) in enumerate(zip(recent, items, strict=True)):
        starts, ends = near.offsets[sources], near.offsets[sources + 1]
        lag = np.repeat(np.arange(len(sources)), ends - starts)
        index = np.concatenate([np.empty(0, dtype=np.int64), *map(np.arange, starts, ends)])
        if excluded is not None:
            is_left = ~np.isin(near.items[index], excluded[row])
            lag, index = lag[is_left], index[is_left]
        depth = np.logical_and.accumulate(codes[near.items[index]] == codes[item], axis=1).sum(1)
        cell = np.ravel_multi_index((depth, lag, pairs.kinds[index]), shape)
        found[row] = np.bincount(cell, near.weights[index], found[row].size).reshape(shape)
    # So far by how many codes are shared exactly; who shares more shares fewer as well.
    return np.asarray(found[:, ::-1].cumsum(axis=1)[:, ::-1])
