"""Unique codes at the least distortion: of items that share a prefix, each gets a last code of its own.

Where codewords are known, "near" is a distance, not a number: among the items behind one prefix the last codes are
dealt so that the sum of squared distances between what the prefix leaves of each item and its last codeword is least
(a linear assignment). Codes given earlier are never touched, so items may come in any number of turns.

Shapes: N items, D dimensions, M levels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import IntArray
from peso.semantic_ids.assignment import check_capacity
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.quantizers.additive import AdditiveCodebook, Float64, squared_distances


@dataclass(frozen=True, eq=False)
class Match:
    """Unique codes and their price.

    Attributes:
        codes: int64 [N, M], distinct, and none of those that were taken.
        error_before: mean squared distance between the latents and the codebook's own codes.
        error_after: the same for the unique codes.
    """

    codes: IntArray
    error_before: float
    error_after: float


def match_unique(codebook: AdditiveCodebook, vectors: Vectors, codes: IntArray, taken: IntArray) -> Match:
    """Gives every item a code of its own.

    Behind each prefix of M - 1 codes where two items collide, with each other or with a code that is taken, the free
    last codes are assigned at minimum cost. Where there are more items than free codes, the cheapest stay and each of
    the others, in order, goes to the nearest branch with room: the deepest of its prefixes that is not full, then
    level by level the nearest codeword whose branch has room.

    Args:
        codebook: what gave the codes.
        vectors: float32 [N, D].
        codes: int64 [N, M], the codebook's; rows may repeat.
        taken: int64 [T, M], distinct codes of earlier items.

    Raises:
        DataError: there are more items than codes, or more codes than 2^62.
    """
    from scipy.optimize import linear_sum_assignment  # takes a second, and wrong input is refused before

    sizes = np.array(codebook.level_sizes, dtype=np.int64)
    check_capacity(len(codes) + len(taken), codebook.level_sizes)
    strides = np.r_[np.cumprod(sizes[:0:-1])[::-1], 1]
    latents = codebook.latents(vectors)
    residuals = latents - codebook.reconstruct(codes, len(sizes) - 1)
    numbers, taken_numbers = codes @ strides, np.sort(taken @ strides)
    is_crowded = _collides(numbers, taken_numbers)
    unique = codes.copy()
    homeless: list[int] = []
    last_size = int(sizes[-1])
    for members in _groups(numbers // last_size, is_crowded):
        prefix = int(numbers[members[0]]) // last_size
        free = np.setdiff1d(np.arange(last_size), _within(taken_numbers, prefix, last_size))
        costs = squared_distances(residuals[members], codebook.codewords[-1][free])
        rows, columns = linear_sum_assignment(costs)
        unique[members[rows], -1] = free[columns]
        homeless += np.delete(members, rows).tolist()
    if homeless:
        settled = np.delete(unique, homeless, axis=0)
        tree = _Branches(codebook, np.concatenate([taken, settled]))
        for item in sorted(homeless):
            unique[item] = tree.take_nearest(codes[item], latents[item])
    return Match(unique, *(_mean_error(codebook, latents, some) for some in (codes, unique)))


def _mean_error(codebook: AdditiveCodebook, latents: Float64, codes: IntArray) -> float:
    gaps = latents - codebook.reconstruct(codes, codes.shape[1])
    return float((gaps**2).sum(axis=1).mean()) if len(gaps) else 0.0


def _collides(numbers: IntArray, taken: IntArray) -> NDArray[np.bool_]:
    """Whether each code is shared by two items or taken, bool [N]."""
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return (counts[places] > 1) | np.isin(numbers, taken)


def _groups(prefixes: IntArray, is_crowded: NDArray[np.bool_]) -> list[IntArray]:
    """The items of every prefix with a collision."""
    members = np.flatnonzero(np.isin(prefixes, prefixes[is_crowded]))
    members = members[np.argsort(prefixes[members], kind="stable")]
    return np.split(members, np.flatnonzero(np.diff(prefixes[members])) + 1) if len(members) else []


def _within(taken: IntArray, prefix: int, last_size: int) -> IntArray:
    """Last codes that are taken behind a prefix, given all that are, ascending."""
    start, end = np.searchsorted(taken, [prefix * last_size, (prefix + 1) * last_size])
    return taken[start:end] % last_size


class _Branches:
    """Which branches of the tree of codes have room, and the way to the nearest."""

    def __init__(self, codebook: AdditiveCodebook, taken: IntArray) -> None:
        self._codewords = codebook.codewords
        sizes = codebook.level_sizes
        self._room = [int(np.prod(sizes[level:], dtype=object)) for level in range(len(sizes) + 1)]
        self._num_taken: dict[tuple[int, ...], int] = {}
        for row in taken.tolist():
            self._take(tuple(row))

    def _take(self, code: tuple[int, ...]) -> None:
        for depth in range(len(code) + 1):
            self._num_taken[code[:depth]] = self._num_taken.get(code[:depth], 0) + 1

    def _has_room(self, branch: tuple[int, ...]) -> bool:
        return self._num_taken.get(branch, 0) < self._room[len(branch)]

    def take_nearest(self, code: IntArray, latent: Float64) -> tuple[int, ...]:
        """Takes a free code for an item, given the code it would have and its latent, float64 [D]."""
        branch = tuple(code[:-1].tolist())
        while not self._has_room(branch):
            branch = branch[:-1]
        residual = latent.copy()
        for level, own in enumerate(branch):
            residual -= self._codewords[level][own]
        for words in self._codewords[len(branch) :]:
            order = np.argsort(squared_distances(residual[None], words)[0], kind="stable").tolist()
            nearest = next(child for child in order if self._has_room((*branch, child)))
            branch = (*branch, nearest)
            residual -= words[nearest]
        self._take(branch)
        return branch
