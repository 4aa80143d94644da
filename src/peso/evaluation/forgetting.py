"""What a stream of updates forgets and carries over: summaries of every model's results on every block.

Index legend: T updates; R[i, j] is a metric (more is better) of the model after block i, i = 0 … T, on the test targets
of block j, j = 1 … T. Model 0 is the base, which no update has touched.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso.errors import DataError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Transfer:
    """What earlier and later blocks have of each update, in the unit of the metric.

    Attributes:
        forgetting: what the last model has lost on earlier blocks against the best model there; less is better.
        backward: what later updates added on earlier blocks; negative where they took away.
        forward: what earlier updates added on a block that is still to come; positive where updates help.
    """

    forgetting: float
    backward: float
    forward: float


def transfer(results: FloatArray) -> Transfer:
    """Forgetting, backward and forward transfer of a stream.

    Formulas:
        forgetting = 1/(T-1) sum_{j=1}^{T-1} ( max_{i=j}^{T-1} R[i, j] - R[T, j] )
        backward   = 1/(T-1) sum_{j=1}^{T-1} ( R[T, j] - R[j, j] )
        forward    = 1/(T-1) sum_{j=2}^{T}   ( R[j-1, j] - R[0, j] )

    Args:
        results: R, float64 [T + 1, T]; row i is the model after block i, column j - 1 the targets of block j.

    Raises:
        DataError: fewer than two updates, or a value is missing.

    Source: Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017 (backward, forward);
    Chaudhry et al., "Riemannian walk for incremental learning", ECCV 2018 (forgetting). Differs from the first: forward
    transfer is measured from the base, which knows block 0, and not from random weights; and from the second: the
    maximum is over models that have trained on the block.
    """
    num_updates = _num_updates(results)
    earlier = range(num_updates - 1)  # columns of blocks 1 ... T - 1; block j is column j - 1
    last = results[num_updates]
    forgotten = [results[column + 1 : num_updates, column].max() - last[column] for column in earlier]
    added = [last[column] - results[column + 1, column] for column in earlier]
    carried = [results[column, column] - results[0, column] for column in range(1, num_updates)]
    return Transfer(float(np.mean(forgotten)), float(np.mean(added)), float(np.mean(carried)))


def transfer_pairs(num_updates: int) -> dict[str, list[tuple[int, int, int]]]:
    """Which two models a transfer compares on which block, so that it can be tested target by target.

    Args:
        num_updates: T, at least 2.

    Returns:
        For "backward" and "forward": (model, model it is compared with, block of the targets), one entry per block.
        Forgetting is a maximum, not a difference of two models, and has no such pairs.
    """
    return {
        "backward": [(num_updates, block, block) for block in range(1, num_updates)],
        "forward": [(block - 1, 0, block) for block in range(2, num_updates + 1)],
    }


def _num_updates(results: FloatArray) -> int:
    num_updates = results.shape[1]
    assert results.shape == (num_updates + 1, num_updates), "a row per model and a column per later block"
    if num_updates < 2:
        raise DataError("transfer between blocks needs at least two updates; use data with three blocks or more.")
    if not np.isfinite(results).all():
        raise DataError("a model has no result on a block; measure every model on every block.")
    return num_updates
