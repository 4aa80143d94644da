"""Normalised discounted cumulative gain at k, for lists with one true item."""

import numpy as np
from numpy.typing import NDArray


def ndcg(rank: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """How high each true item stands, discounted by the logarithm of its place.

    Formula: ndcg@k = 1 / log2(rank + 1) if 1 <= rank <= k, else 0. The ideal list has the one true item first and a
    gain of 1, so no further normalisation is needed.

    Args:
        rank: int64 [T], place of the true item in its list, 1 = first; 0 = not in the list.
        k: cut-off, at least 1. A list shorter than k counts as it is.

    Returns:
        float64 [T] in [0, 1]; empty for no targets.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, with
    binary relevance and one relevant item.
    """
    assert k >= 1, "a cut-off is at least 1"
    is_listed = (rank >= 1) & (rank <= k)
    return np.where(is_listed, 1.0 / np.log2(np.where(is_listed, rank, 1) + 1.0), 0.0)
