"""Lists of items in an array of fixed width."""

import numpy as np

from peso.data.dataset import IntArray


def padded(items: IntArray, k: int) -> IntArray:
    """A list cut or filled with -1 to length k."""
    result = np.full(k, -1, dtype=np.int64)
    result[: len(items)] = items[:k]
    return result


def completed(best: IntArray, popular: IntArray, k: int) -> IntArray:
    """A list that goes on with popular items where the best end.

    Args:
        best: int64, best first.
        popular: int64, what to go on with.
        k: list length.

    Returns:
        int64 [k], no item twice, filled with -1.
    """
    wanted = np.r_[best[:k], popular]
    _, first_places = np.unique(wanted, return_index=True)
    return padded(wanted[np.sort(first_places)], k)
