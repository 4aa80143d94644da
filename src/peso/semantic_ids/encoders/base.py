"""The contract of an encoder: items in, vectors out, the same vector for the same item for ever.

Shapes: N items, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from peso.semantic_ids.frozen import FrozenState, Vectors


@dataclass(frozen=True, eq=False)
class ItemContents:
    """What an encoder may look at.

    Attributes:
        ids: external ids, length N.
        texts: what is written about each item, length N; empty where nothing is known.
    """

    ids: Sequence[str]
    texts: Sequence[str]

    def __len__(self) -> int:
        """Items N."""
        return len(self.ids)

    def slice(self, start: int, end: int) -> "ItemContents":
        """Items start to end - 1."""
        return ItemContents(self.ids[start:end], self.texts[start:end])


class Encoder(Protocol):
    """A frozen map from items to vectors; each item's vector depends on that item alone."""

    def encode(self, items: ItemContents) -> Vectors:
        """Vectors of items.

        Args:
            items: any number, items unknown when the encoder was fitted included.

        Returns:
            float32 [N, D], finite; zeros for an item of which the encoder knows nothing.
        """
        ...

    def state(self) -> FrozenState:
        """Everything needed to build this encoder again."""
        ...


def unit_rows(vectors: Vectors) -> Vectors:
    """Every row divided by its length; rows of zeros stay.

    Args:
        vectors: [N, D].
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
