"""Reciprocal rank at k; its mean over targets is MRR@k."""

import numpy as np
from numpy.typing import NDArray


def reciprocal_rank(rank: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """One over the place of each true item.

    Formula: reciprocal_rank@k = 1 / rank if 1 <= rank <= k, else 0.

    Args:
        rank: int64 [T], place of the true item in its list, 1 = first; 0 = not in the list.
        k: cut-off, at least 1. A list shorter than k counts as it is.

    Returns:
        float64 [T] in [0, 1]; empty for no targets.

    Source: Voorhees, "The TREC-8 question answering track report", 1999 (mean reciprocal rank), cut at k.
    """
    assert k >= 1, "a cut-off is at least 1"
    is_listed = (rank >= 1) & (rank <= k)
    return np.where(is_listed, 1.0 / np.where(is_listed, rank, 1), 0.0)
