"""The memory beside a model: counts of what stood near what, of everything the model may have trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peso.config import MemoryConfig
from peso.data.dataset import Dataset, IntArray
from peso.data.neighbours import FloatArray, Neighbours, count_neighbours
from peso.decoding.recommend import RememberedItems

STRENGTHS = np.geomspace(0.05, 2000, 33)
"""What a level's strength is chosen from: 1.4 times from one to the next."""

FIRST_STRENGTH = 10.0
"""Of every level while there is nothing to choose by."""


@dataclass(frozen=True, eq=False)
class NeighbourMemory:
    """Counts of neighbours, and how a history asks for them.

    Attributes:
        neighbours: what stood near what.
        codes: int64 [N, M], the items' codes.
        config: lag weights.
        strengths: kappa of each level.
    """

    neighbours: Neighbours
    codes: IntArray
    config: MemoryConfig
    strengths: tuple[float, ...]

    def recall(self, histories: Sequence[IntArray]) -> RememberedItems:
        """What is remembered for the moment after each history."""
        found = [self.neighbours.near(history, self.config.lag_weights) for history in histories]
        return RememberedItems([items for items, _ in found], [weights for _, weights in found], self.strengths)

    def log_likelihoods(self, histories: Sequence[IntArray], items: IntArray, by_model: FloatArray) -> FloatArray:
        """Of model and memory together; see `peso.decoding.memory`.

        Args:
            histories: per target.
            items: int64 [T], the targets' items.
            by_model: float64 [T, M], the model's log-probability of each code in nats.

        Returns:
            float64 [T], in nats.
        """
        of_prefix, of_code = self._counts(histories, items)
        return np.asarray(_mixed(of_prefix, of_code, by_model, np.array(self.strengths)).sum(1))

    def with_best_strengths(
        self, histories: Sequence[IntArray], items: IntArray, by_model: FloatArray
    ) -> "NeighbourMemory":
        """The same memory with the strengths under which some targets are most likely, each level on its own.

        Args:
            histories: per target; none leave the strengths as they are.
            items: int64 [T], the targets' items.
            by_model: see `log_likelihoods`.
        """
        if len(items) == 0:
            return self
        of_prefix, of_code = self._counts(histories, items)
        gains = np.stack([_mixed(of_prefix, of_code, by_model, strength).mean(0) for strength in STRENGTHS])
        best = tuple(float(strength) for strength in STRENGTHS[gains.argmax(0)])
        return NeighbourMemory(self.neighbours, self.codes, self.config, best)

    def _counts(self, histories: Sequence[IntArray], items: IntArray) -> tuple[FloatArray, FloatArray]:
        """C of the prefix before each code of each target, and with the code; float64 [T, M] each."""
        num_levels = self.codes.shape[1]
        of_prefix, of_code = np.zeros((len(items), num_levels)), np.zeros((len(items), num_levels))
        for row, (history, item) in enumerate(zip(histories, items, strict=True)):
            near, weights = self.neighbours.near(history, self.config.lag_weights)
            shares_prefix = np.logical_and.accumulate(self.codes[near] == self.codes[item], axis=1)
            of_code[row] = weights @ shares_prefix
            of_prefix[row] = np.r_[weights.sum(), of_code[row, :-1]]
        return of_prefix, of_code


def _mixed(
    of_prefix: FloatArray, of_code: FloatArray, by_model: FloatArray, strength: FloatArray | float
) -> FloatArray:
    return np.asarray(np.log((of_code + strength * np.exp(by_model)) / (of_prefix + strength)))


def build_memory(dataset: Dataset, events: IntArray, codes: IntArray, config: MemoryConfig) -> NeighbourMemory:
    """Counts some events.

    Args:
        dataset: the events.
        events: event indices that may be known, int64, ascending.
        codes: int64 [N, M], the items' codes.
        config: weights of pairs, and the strength if it is fixed.
    """
    neighbours = count_neighbours(dataset, events, config.distance_weights, config.backward, config.decay)
    strengths = (FIRST_STRENGTH if config.strength == "auto" else config.strength,) * codes.shape[1]
    return NeighbourMemory(neighbours, codes, config, strengths)
