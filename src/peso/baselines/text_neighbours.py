"""Items whose text is nearest to that of the last items: what the content alone can say, of new items too."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from peso.baselines.base import Baseline
from peso.baselines.lists import completed, padded
from peso.data.dataset import IntArray
from peso.data.examples import history_starts
from peso.files import sha256_of

MAX_HISTORY = 20
WEIGHT_PER_STEP = 0.8
"""What an item of a history counts, relative to the one after it."""

_USERS_AT_ONCE = 512


def text_neighbours(vectors: NDArray[np.float32]) -> type[Baseline]:
    """The rival over given vectors.

    Args:
        vectors: float32 [N, D], one row per item of the data set; a row of zeros is near nothing.

    Returns:
        A rival that lists the items with the largest cosine to the weighted mean of the history's unit vectors, and
        the popular ones for users without a history.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    fingerprint = sha256_of(np.ascontiguousarray(units).tobytes())

    class TextNeighbours(Baseline):
        """See `text_neighbours`; it learns nothing from events."""

        name: ClassVar[str] = "text_neighbours"

        @classmethod
        def config(cls) -> dict[str, Any]:
            """See `Baseline.config`."""
            return {"vectors": fingerprint, "max_history": MAX_HISTORY, "weight_per_step": WEIGHT_PER_STEP}

        def lists(self, targets: IntArray, k: int, allowed: IntArray) -> IntArray:
            """See `Baseline.lists`."""
            starts = history_starts(self.dataset, targets, MAX_HISTORY)
            means = np.zeros((len(targets), units.shape[1]), dtype=np.float32)
            for row, (start, target) in enumerate(zip(starts, targets, strict=True)):
                weights = WEIGHT_PER_STEP ** np.arange(target - start - 1, -1, -1, dtype=np.float32)
                means[row] = weights @ units[self.dataset.event_item[start:target]]
            popular = self.popular(k, allowed)
            table = np.tile(completed(popular[:0], popular, k), (len(targets), 1))
            candidates = units[allowed].T
            for first in range(0, len(targets), _USERS_AT_ONCE):
                scores = means[first : first + _USERS_AT_ONCE] @ candidates
                for row, of_user in enumerate(scores, start=first):
                    if starts[row] == targets[row]:
                        continue
                    near = np.argpartition(-of_user, min(k, len(allowed) - 1))[:k] if k < len(allowed) else slice(None)
                    items, values = allowed[near], of_user[near]
                    table[row] = padded(items[np.lexsort((items, -values))], k)
            return table

    return TextNeighbours
