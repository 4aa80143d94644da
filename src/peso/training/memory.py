"""The memory beside a model: what stood near what in everything the model may have trained on, and what is alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from peso.config import MemoryConfig
from peso.data.dataset import Dataset, IntArray
from peso.data.examples import has_repeats
from peso.decoding.recommend import RememberedItems
from peso.memory.neighbours import FloatArray, Neighbours, count_as_configured, not_taken

STRENGTHS = np.geomspace(0.05, 2000, 33)
"""What a level's strength is chosen from: 1.4 times from one to the next."""

FIRST_STRENGTH = 10.0
"""Of every level while there is nothing to choose by."""

CONTENT_WEIGHTS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)
"""What the weight of like content is chosen from."""

FIRST_CONTENT_WEIGHT = 1.0
"""While there is nothing to choose by."""


@dataclass(frozen=True, eq=False)
class NeighbourMemory:
    """Counts of neighbours and items of like content, and how a history asks for them.

    Attributes:
        neighbours: what stood near what.
        similar: what is like what, with weights up to 1; None where items have no vectors.
        codes: int64 [N, M], the items' codes.
        config: lag weights, and what is fixed.
        content_weight: of `similar`, in counts.
        has_repeats: whether users take items again; otherwise nobody is reminded of what he took.
        strengths: kappa of each level.
    """

    neighbours: Neighbours
    similar: Neighbours | None
    codes: IntArray
    config: MemoryConfig
    content_weight: float
    has_repeats: bool
    strengths: tuple[float, ...]

    def near(self, history: IntArray) -> tuple[IntArray, FloatArray]:
        """What is remembered for the moment after a history: items, int64 [E], ascending, and weights, float64 [E]."""
        items, weights = self.neighbours.near(history, self.config.lag_weights)
        if self.similar is not None and self.content_weight > 0:
            alike, of_alike = self.similar.near(history, self.config.lag_weights)
            items, place = np.unique(np.concatenate([items, alike]), return_inverse=True)
            together = np.concatenate([weights, self.content_weight * of_alike])
            weights = np.bincount(place, together, len(items)).astype(np.float64)
        return (items, weights) if self.has_repeats else not_taken(items, weights, history)

    def recall(self, histories: Sequence[IntArray]) -> RememberedItems:
        """What is remembered for the moment after each history."""
        found = [self.near(history) for history in histories]
        items, weights = [items for items, _ in found], [weights for _, weights in found]
        return RememberedItems(items, weights, self.strengths, self.config.prefix_power)

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
        strengths = np.array(self.strengths)
        return np.asarray(_mixed(of_prefix, of_code, by_model, strengths, self.config.prefix_power).sum(1))

    def fitted(self, histories: Sequence[IntArray], items: IntArray, by_model: FloatArray) -> "NeighbourMemory":
        """The same memory with the content weight and strengths under which some targets are most likely.

        What the configuration fixes stays; each level's strength is chosen on its own.

        Args:
            histories: per target; none leave everything as it is.
            items: int64 [T], the targets' items.
            by_model: see `log_likelihoods`.
        """
        if len(items) == 0:
            return self
        is_open = self.config.content_weight == "auto" and self.similar is not None
        best, best_gain = self, -np.inf
        for weight in CONTENT_WEIGHTS if is_open else (self.content_weight,):
            candidate = replace(self, content_weight=weight)
            of_prefix, of_code = candidate._counts(histories, items)
            options = STRENGTHS if self.config.strength == "auto" else np.array(self.strengths[:1])
            power = self.config.prefix_power
            gains = np.stack([_mixed(of_prefix, of_code, by_model, strength, power).mean(0) for strength in options])
            if gains.max(0).sum() > best_gain:
                strengths = tuple(float(strength) for strength in options[gains.argmax(0)])
                best, best_gain = replace(candidate, strengths=strengths), gains.max(0).sum()
        return best

    def _counts(self, histories: Sequence[IntArray], items: IntArray) -> tuple[FloatArray, FloatArray]:
        """C of the prefix before each code of each target, and with the code; float64 [T, M] each."""
        num_levels = self.codes.shape[1]
        of_prefix, of_code = np.zeros((len(items), num_levels)), np.zeros((len(items), num_levels))
        for row, (history, item) in enumerate(zip(histories, items, strict=True)):
            near, weights = self.near(history)
            shares_prefix = np.logical_and.accumulate(self.codes[near] == self.codes[item], axis=1)
            of_code[row] = weights @ shares_prefix
            of_prefix[row] = np.r_[weights.sum(), of_code[row, :-1]]
        return of_prefix, of_code


def _mixed(
    of_prefix: FloatArray, of_code: FloatArray, by_model: FloatArray, strength: FloatArray | float, power: float
) -> FloatArray:
    prefix_by_model = np.cumsum(by_model, axis=1) - by_model
    weight = strength * np.exp(power * prefix_by_model)
    return np.asarray(np.log((of_code + weight * np.exp(by_model)) / (of_prefix + weight)))


def build_memory(
    dataset: Dataset, events: IntArray, codes: IntArray, config: MemoryConfig, similar: Neighbours | None = None
) -> NeighbourMemory:
    """Counts some events.

    Args:
        dataset: the events.
        events: event indices that may be known, int64, ascending.
        codes: int64 [N, M], the items' codes.
        config: weights of pairs, and what else is fixed.
        similar: see `peso.semantic_ids.similar_items`.
    """
    neighbours = count_as_configured(dataset, events, config)
    strengths = (FIRST_STRENGTH if config.strength == "auto" else config.strength,) * codes.shape[1]
    weight = FIRST_CONTENT_WEIGHT if config.content_weight == "auto" else config.content_weight
    weight = weight if similar is not None else 0.0
    return NeighbourMemory(neighbours, similar, codes, config, weight, has_repeats(dataset), strengths)
