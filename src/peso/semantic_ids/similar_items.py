"""Which items are alike by their vectors, in the form in which counts of neighbours are kept.

What nobody has taken yet has no counts, but it has a text; items without any vector are like nothing.

Shapes: N items, D dimensions.
"""

import numpy as np

from peso.data.dataset import IntArray
from peso.memory.neighbours import Neighbours
from peso.semantic_ids.frozen import Vectors

NUM_SIMILAR = 50
"""Items that each item keeps."""
SHARPNESS = 8
"""Power of the cosine that an item weighs: of two items, one twice as far in angle hardly counts beside the other."""
LARGEST_SEARCHED = 100_000
"""In larger catalogues an item is compared with those that share its first code only, so that time stays linear."""

_ROWS_AT_ONCE = 512


def similar_items(vectors: Vectors, codes: IntArray) -> Neighbours:
    """The nearest other items of each item, by cosine.

    Args:
        vectors: float32 [N, D].
        codes: int64 [N, M].

    Returns:
        Up to `NUM_SIMILAR` items of positive cosine per item, weighted by its power.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    groups = np.zeros(len(vectors), dtype=np.int64) if len(vectors) <= LARGEST_SEARCHED else codes[:, 0]
    sources, found, weights = [], [], []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        width = min(NUM_SIMILAR, len(members) - 1)
        candidates = units[members].T
        for start in range(0, len(members) if width else 0, _ROWS_AT_ONCE):
            rows = members[start : start + _ROWS_AT_ONCE]
            cosines = units[rows] @ candidates
            cosines[np.arange(len(rows)), start + np.arange(len(rows))] = -1
            near = np.sort(np.argpartition(-cosines, width - 1, axis=1)[:, :width], axis=1)
            values = np.take_along_axis(cosines, near, axis=1)
            row, column = np.nonzero(values > 0)
            sources.append(rows[row])
            found.append(members[near[row, column]])
            weights.append(values[row, column].astype(np.float64) ** SHARPNESS)
    empty = np.empty(0, dtype=np.int64)
    source = np.concatenate([empty, *sources])
    order = np.argsort(source, kind="stable")
    offsets = np.searchsorted(source[order], np.arange(len(vectors) + 1)).astype(np.int64)
    return Neighbours(offsets, np.concatenate([empty, *found])[order], np.concatenate([np.empty(0), *weights])[order])
