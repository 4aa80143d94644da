"""A codebook that goes on learning, and codes that follow it where they must.

Codes are words that a model has learned, so a codebook may not be learned from nothing again: code 17 would mean
something else. Here the squared distance of the items to their codes is lowered with at most `most` items moved:

    min over words and codes of sum_n || x_n - sum_m words_m[codes_nm] ||^2,   codes distinct, few rows changed

by turns. With codes fixed, a word becomes the mean of what the levels before it leave of its items, as in residual
k-means, for codes are read level by level (words fitted jointly are nearer in sum, and misread one by one). Since
nearly all items stay, code 17 goes on to mean what it meant. With words fixed, items whose code is clearly wrong move
to the nearest free one, those that gain most first. A turn that does not lower the distance is not taken.

Shapes: N items, D dimensions, L dimensions of the latents, M levels, K codes of a level.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import IntArray
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.matching import match_unique
from peso.semantic_ids.quantizers.additive import AdditiveCodebook, Float64

WRONG = 1.25
"""A code is wrong if its squared error is more than this many times that of the nearest code."""

_MAX_TURNS = 50
_LEAST_GAIN = 1e-4
"""Share of the error by which a turn must lower it for another to follow."""


@dataclass(frozen=True, eq=False)
class Relearned:
    """A codebook and the codes that fit it.

    Attributes:
        codebook: of the same shape, over the same network.
        codes: int64 [N, M], distinct.
        is_moved: bool [N], which rows changed.
        num_left: items whose code is wrong and stayed.
    """

    codebook: AdditiveCodebook
    codes: IntArray
    is_moved: NDArray[np.bool_]
    num_left: int


def relearn(codebook: AdditiveCodebook, vectors: Vectors, codes: IntArray, most: int) -> Relearned:
    """Fits codebook and codes to the items there are by now.

    Args:
        codebook: that of residual k-means or RQ-VAE, whose words may lie anywhere.
        vectors: float32 [N, D]; items without one (zeros) teach nothing and keep their codes.
        codes: int64 [N, M], distinct.
        most: items that may move.
    """
    teaches: NDArray[np.bool_] = np.abs(vectors).sum(axis=1) > 0
    now, error = codes, _total(codebook, vectors, codes, teaches)
    for _ in range(_MAX_TURNS):
        moved_words = _means(codebook, vectors[teaches], now[teaches])
        moved = _moved(moved_words, vectors, codes, most)
        stays = _total(moved_words, vectors, now, teaches)
        goes = _total(moved_words, vectors, moved, teaches)
        before, error = error, min(stays, goes)
        if error >= before:
            break
        codebook, now = moved_words, moved if goes < stays else now
        if error > (1 - _LEAST_GAIN) * before:
            break
    is_moved = (now != codes).any(axis=1)
    return Relearned(codebook, now, is_moved, int((_is_wrong(codebook, vectors, now) & ~is_moved).sum()))


def _means(codebook: AdditiveCodebook, vectors: Vectors, codes: IntArray) -> AdditiveCodebook:
    """Each word the mean of what the levels before it leave of its items; a word without items stays."""
    left = codebook.latents(vectors)
    codewords = []
    for words, own in zip(codebook.codewords, codes.T, strict=True):
        counts, sums = np.bincount(own, minlength=len(words)), np.zeros(words.shape)
        np.add.at(sums, own, left)
        moved = words.astype(np.float64)
        moved[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
        left = left - moved[own]
        codewords.append(moved.astype(np.float32))
    return codebook.with_codewords(codewords)


def _moved(codebook: AdditiveCodebook, vectors: Vectors, codes: IntArray, most: int) -> IntArray:
    """Codes after the worst of the wrong ones were given up, each for a better one that was free."""
    levels = len(codebook.level_sizes)
    nearest = codebook.encode(vectors)
    own, least = (codebook.squared_errors(vectors, some, levels) for some in (codes, nearest))
    order = np.argsort(least - own, kind="stable")
    moving = np.sort(order[_is_wrong(codebook, vectors, codes)[order]][:most])
    while len(moving):
        match = match_unique(codebook, vectors[moving], nearest[moving], np.delete(codes, moving, axis=0))
        gains = codebook.squared_errors(vectors[moving], match.codes, levels) < own[moving]
        if gains.all():
            moved = codes.copy()
            moved[moving] = match.codes
            return moved
        moving = moving[gains]  # the others keep their codes, which are no longer free
    return codes


def _is_wrong(codebook: AdditiveCodebook, vectors: Vectors, codes: IntArray) -> NDArray[np.bool_]:
    levels = len(codebook.level_sizes)
    own, least = (codebook.squared_errors(vectors, some, levels) for some in (codes, codebook.encode(vectors)))
    return (own > WRONG * least) & (np.abs(vectors).sum(axis=1) > 0)


def _total(codebook: AdditiveCodebook, vectors: Vectors, codes: IntArray, teaches: NDArray[np.bool_]) -> float:
    errors: Float64 = codebook.squared_errors(vectors[teaches], codes[teaches], len(codebook.level_sizes))
    return float(errors.sum())
