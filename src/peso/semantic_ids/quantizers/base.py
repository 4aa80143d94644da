"""The contract of a quantizer: it learns a codebook from vectors once, and the codebook never changes.

Shapes: N items, D dimensions of the vectors, M levels, K_m codes of level m.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import IntArray
from peso.semantic_ids.frozen import FrozenState, Vectors


class Codebook(Protocol):
    """A frozen map from vectors to codes."""

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """K_1 to K_M."""
        ...

    def encode(self, vectors: Vectors) -> IntArray:
        """Codes of vectors; equal vectors get equal codes, whatever stands beside them.

        Args:
            vectors: float32 [N, D].

        Returns:
            int64 [N, M]; rows may repeat.
        """
        ...

    def state(self) -> FrozenState:
        """Everything needed to build this codebook again."""
        ...


@dataclass(frozen=True, eq=False)
class Fit:
    """What a quantizer learned.

    Attributes:
        codebook: for every later item.
        codes: of the vectors it learned from, int64 [N, M]; those of the codebook, unless the quantizer places items by
            something other than their vectors.
    """

    codebook: Codebook
    codes: IntArray


class Quantizer(Protocol):
    """Learns a codebook."""

    def fit(self, vectors: Vectors, popularity: NDArray[np.float64], level_sizes: tuple[int, ...], seed: int) -> Fit:
        """Learns from the items that are known.

        Args:
            vectors: float32 [N, D], N at least 1.
            popularity: events of each item, float64 [N].
            level_sizes: codes per level.
            seed: of everything random.
        """
        ...
