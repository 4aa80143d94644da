"""Codes that know nothing of an item's content: what a tokenizer must beat."""

import heapq
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import IntArray
from peso.seeding import derive_seed
from peso.semantic_ids.frozen import FrozenState, Vectors
from peso.semantic_ids.quantizers.base import Fit


class HashCodebook:
    """Uniform codes drawn from a hash of the vector: as random as they get, yet the same for the same item."""

    kind = "hash"

    def __init__(self, level_sizes: tuple[int, ...], seed: int) -> None:
        """Sets what decides the codes.

        Args:
            level_sizes: codes per level.
            seed: of the hash.
        """
        self._level_sizes, self._seed = level_sizes, seed

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """See `Codebook.level_sizes`."""
        return self._level_sizes

    def with_last_level(self, size: int) -> "HashCodebook":
        """The same hash with another number of codes at its last level."""
        return HashCodebook((*self._level_sizes[:-1], size), self._seed)

    def encode(self, vectors: Vectors) -> IntArray:
        """See `Codebook.encode`."""
        codes = np.empty((len(vectors), len(self._level_sizes)), dtype=np.int64)
        for row, vector in zip(codes, vectors, strict=True):
            random = np.random.default_rng(derive_seed(self._seed, vector.astype("<f4").tobytes().hex()))
            row[:] = random.integers(self._level_sizes)
        return codes

    def state(self) -> FrozenState:
        """See `Codebook.state`."""
        return FrozenState({"kind": self.kind, "level_sizes": list(self._level_sizes), "seed": self._seed})

    @classmethod
    def from_state(cls, state: FrozenState) -> "HashCodebook":
        """The codebook that gave this state."""
        return cls(tuple(state.facts["level_sizes"]), state.facts["seed"])


class RandomCodes:
    """Every item anywhere."""

    def fit(self, vectors: Vectors, popularity: NDArray[np.float64], level_sizes: tuple[int, ...], seed: int) -> Fit:
        """See `Quantizer.fit`; nothing is learned.

        The items at hand are drawn one by one, so that not even equal ones share codes; later items are hashed.
        """
        random = np.random.default_rng(derive_seed(seed, "random"))
        codes = random.integers(level_sizes, size=(len(vectors), len(level_sizes)))
        return Fit(HashCodebook(level_sizes, derive_seed(seed, "random", "later")), codes)


class BalancedCodes:
    """Every code of a level carries the same share of the events: no code is popular, none is dead."""

    def fit(self, vectors: Vectors, popularity: NDArray[np.float64], level_sizes: tuple[int, ...], seed: int) -> Fit:
        """See `Quantizer.fit`; the most popular items are dealt first, each to the code with the fewest events.

        Later items, whose popularity nobody knows, get codes at random.
        """
        random = np.random.default_rng(derive_seed(seed, "balanced"))
        codes = np.zeros((len(vectors), len(level_sizes)), dtype=np.int64)
        groups = [np.argsort(-popularity, kind="stable")]
        for level, size in enumerate(level_sizes):
            for members in groups:
                codes[members, level] = _deal(popularity[members], size, random)
            groups = [part for members in groups for part in _parts(members, codes[members, level])]
        return Fit(HashCodebook(level_sizes, derive_seed(seed, "balanced", "later")), codes)


def _deal(weights: NDArray[np.float64], size: int, random: np.random.Generator) -> IntArray:
    """Codes of items that come in order of falling weight; of equally light codes, the one with fewest items."""
    stacks = [(0.0, 0, place, code) for place, code in enumerate(random.permutation(size).tolist())]
    heapq.heapify(stacks)
    codes = np.empty(len(weights), dtype=np.int64)
    for number, weight in enumerate(weights.tolist()):
        total, count, place, code = stacks[0]
        codes[number] = code
        heapq.heapreplace(stacks, (total + weight, count + 1, place, code))
    return codes


def _parts(members: IntArray, codes: IntArray) -> Iterator[IntArray]:
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    yield from np.split(members[order], starts)
