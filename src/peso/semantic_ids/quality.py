"""How good a catalogue's codes are, level by level, whoever made them.

Shapes: N items, D dimensions of the vectors, M levels, P prefixes of a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import IntArray
from peso.seeding import derive_seed
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.quantizers.additive import AdditiveCodebook

NUM_NEIGHBOURS = 10
_MOST_ITEMS_ASKED = 2000
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class LevelQuality:
    """One level; "prefix" means the codes up to and including it.

    Attributes:
        level: from 1.
        num_codes: codes that the level has.
        num_used: codes that items have.
        perplexity: exp of the entropy of the items' codes, in nats; `num_codes` if all are used alike.
        num_prefixes: distinct prefixes.
        largest_prefix: items behind the fullest.
        variance_within: share of the vectors' variance that is left among items of one prefix; 0 is perfect, and
            reached trivially where every item is alone.
        codebook_error: squared distance of latents to the sum of their first codewords, as a share of the latents'
            variance; None where there are no codewords.
        neighbours_sharing: share of the items' ten nearest neighbours that share the prefix.
        neighbours_by_chance: share of all pairs that do.
        purity: share of the items that have the commonest category of their prefix; None without categories.
        purity_by_chance: the same with categories dealt out at random.
    """

    level: int
    num_codes: int
    num_used: int
    perplexity: float
    num_prefixes: int
    largest_prefix: int
    variance_within: float
    codebook_error: float | None
    neighbours_sharing: float
    neighbours_by_chance: float
    purity: float | None
    purity_by_chance: float | None


def measure_levels(
    vectors: Vectors,
    codes: IntArray,
    level_sizes: Sequence[int],
    codebook: AdditiveCodebook | None = None,
    categories: Sequence[str] | None = None,
) -> list[LevelQuality]:
    """Quality of every level.

    Args:
        vectors: what the items are, float32 [N, D], N at least 2.
        codes: int64 [N, M].
        level_sizes: codes per level.
        codebook: with the codewords behind the codes, if there are any.
        categories: one per item, empty where unknown (such items are left out of the purity).
    """
    asked, neighbours = nearest_neighbours(vectors, NUM_NEIGHBOURS)
    labels = None if categories is None else np.unique(np.asarray(categories), return_inverse=True)[1]
    is_labelled = np.array([bool(category) for category in categories or []], dtype=bool)
    random = np.random.default_rng(derive_seed(0, "purity"))
    qualities = []
    for level, size in enumerate(level_sizes):
        _, prefixes, counts = np.unique(codes[:, : level + 1], axis=0, return_inverse=True, return_counts=True)
        code_counts = np.bincount(codes[:, level], minlength=size)
        purity = chance = None
        if labels is not None and is_labelled.any():
            own, groups = labels[is_labelled], prefixes[is_labelled]
            purity, chance = purity_of(groups, own), purity_of(groups, random.permutation(own))
        qualities.append(
            LevelQuality(
                level=level + 1,
                num_codes=int(size),
                num_used=int((code_counts > 0).sum()),
                perplexity=perplexity_of(code_counts),
                num_prefixes=len(counts),
                largest_prefix=int(counts.max()),
                variance_within=variance_within(vectors, prefixes),
                codebook_error=None if codebook is None else _codebook_error(codebook, vectors, codes, level + 1),
                neighbours_sharing=float((prefixes[neighbours] == prefixes[asked][:, None]).mean()),
                neighbours_by_chance=float((counts * (counts - 1)).sum() / (len(codes) * (len(codes) - 1))),
                purity=purity,
                purity_by_chance=chance,
            )
        )
    return qualities


def perplexity_of(counts: IntArray) -> float:
    """The exponential of the entropy of a distribution given by counts, at least 1."""
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def purity_of(groups: IntArray, labels: IntArray) -> float:
    """Share of the items whose label is the commonest of their group, in [0, 1].

    Args:
        groups: int64 [N].
        labels: int64 [N].
    """
    pairs, counts = np.unique(np.stack([groups, labels]), axis=1, return_counts=True)
    largest = np.zeros(int(groups.max()) + 1, dtype=np.int64)
    np.maximum.at(largest, pairs[0], counts)
    return float(largest.sum() / len(groups))


def variance_within(vectors: Vectors, groups: IntArray) -> float:
    """Sum of squared distances to the group's mean over that to the mean of all, in [0, 1]; 0 if all are equal.

    Args:
        vectors: float32 [N, D].
        groups: int64 [N], from 0 on without gaps.
    """
    wide = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    total = float((wide**2).sum())
    sums = np.zeros((int(groups.max()) + 1, wide.shape[1]))
    np.add.at(sums, groups, wide)
    between = float(((sums**2).sum(axis=1) / np.bincount(groups)).sum())
    return max(0.0, 1 - between / total) if total > 0 else 0.0


def nearest_neighbours(vectors: Vectors, num_neighbours: int) -> tuple[IntArray, IntArray]:
    """The nearest other items of up to 2,000 items drawn at random, in Euclidean distance.

    Args:
        vectors: float32 [N, D].
        num_neighbours: at most N - 1 are given.

    Returns:
        The items asked, int64 [A], ascending, and their neighbours, int64 [A, min(num_neighbours, N - 1)].
    """
    num_items = len(vectors)
    random = np.random.default_rng(derive_seed(0, "neighbours"))
    asked = np.sort(random.permutation(num_items)[:_MOST_ITEMS_ASKED])
    width = min(num_neighbours, num_items - 1)
    norms = (vectors**2).sum(axis=1)
    neighbours = np.empty((len(asked), width), dtype=np.int64)
    for start in range(0, len(asked), 256):
        rows = asked[start : start + 256]
        distances = norms - 2 * vectors[rows] @ vectors.T
        distances[np.arange(len(rows)), rows] = np.inf
        part = np.argpartition(distances, width - 1, axis=1)[:, :width]
        order = np.take_along_axis(distances, part, axis=1).argsort(axis=1, kind="stable")
        neighbours[start : start + 256] = np.take_along_axis(part, order, axis=1)
    return asked, neighbours


def _codebook_error(codebook: AdditiveCodebook, vectors: Vectors, codes: IntArray, num_levels: int) -> float:
    latents = codebook.latents(vectors)
    variance = float(latents.var(axis=0).sum())
    return float(codebook.squared_errors(vectors, codes, num_levels).mean()) / variance if variance > 0 else 0.0
