"""Hit at k: is the true item among the first k recommendations?"""

import numpy as np
from numpy.typing import NDArray


def hit(rank: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Whether each target is among the first k recommended items.

    Formula: hit@k = 1 if 1 <= rank <= k, else 0. With one true item per list, its mean is also recall@k.

    Args:
        rank: int64 [T], place of the true item in its list, 1 = first; 0 = not in the list.
        k: cut-off, at least 1. A list shorter than k counts as it is.

    Returns:
        float64 [T], each 0 or 1; empty for no targets.

    Source: Hit@k of the PESO paper, section "Experiments".
    """
    assert k >= 1, "a cut-off is at least 1"
    return ((rank >= 1) & (rank <= k)).astype(np.float64)
