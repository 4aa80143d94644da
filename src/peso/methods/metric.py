"""The metric H in which an anchor measures distance: the identity, or that of a softmax.

Both are of one shape. With positive weights w and a partition of the coordinates into groups,

    (H x)_i = w_i (x_i - mean of x over i's group, weighted by w),    H = diag w - sum_g w_g w_g^T / sum(w_g),

is positive semi-definite, and what it cannot see is a shift common to a whole group. Weights w = softmax(v_prev) give
the paper's diag p - p p^T (Prop. 3), one block per A or B matrix. Without a partition nothing is free: H = diag w.

Shapes: N coordinates, C groups, K vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Metric:
    """H, kept as its weights.

    Attributes:
        weights: w, float64 [N], positive.
        group: int64 [N], each coordinate's group, 0 to C - 1; None where no shift is free.
    """

    weights: Tensor
    group: Tensor | None = None

    def apply(self, vectors: Tensor) -> Tensor:
        """H x of each vector.

        Args:
            vectors: float64 [N] or [N, K].

        Returns:
            Of the same shape.
        """
        columns, weights = vectors.reshape(len(self.weights), -1), self.weights[:, None]
        if self.group is not None:
            columns = columns - self.shift(self.sums(weights * columns) / self.sums(weights))
        return (weights * columns).view_as(vectors)

    def coordinates(self, vectors: Tensor, point: Tensor) -> Tensor:
        """<q, x>_H = q^T H x of each vector q.

        Args:
            vectors: float64 [N, K].
            point: x, float64 [N].

        Returns:
            float64 [K].
        """
        return vectors.T @ self.apply(point)

    def squared_norm(self, vector: Tensor) -> Tensor:
        """x^T H x of a vector, float64 [N]; a scalar, at least 0 up to rounding."""
        return vector @ self.apply(vector)

    def dense(self) -> Tensor:
        """H, float64 [N, N]."""
        return self.apply(torch.eye(len(self.weights), dtype=self.weights.dtype, device=self.weights.device))

    def sums(self, vectors: Tensor) -> Tensor:
        """Sums over each group.

        Args:
            vectors: float64 [N, K].

        Returns:
            [C, K]; C is 0 where no shift is free.
        """
        if self.group is None:
            return vectors.new_zeros(0, vectors.shape[1])
        sums = vectors.new_zeros(int(self.group.max()) + 1, vectors.shape[1])
        return sums.index_add_(0, self.group, vectors)

    def shift(self, amounts: Tensor) -> Tensor:
        """The vectors that H cannot see: one number for all coordinates of a group.

        Args:
            amounts: float64 [C, K].

        Returns:
            [N, K].
        """
        if self.group is None:
            return amounts.new_zeros(len(self.weights), amounts.shape[1])
        return amounts[self.group]


def identity_metric(size: int) -> Metric:
    """H = I (Cor. 2).

    Args:
        size: N.
    """
    return Metric(torch.ones(size, dtype=torch.float64))


def softmax_metric(anchor: Sequence[Tensor], times_size: bool = False) -> Metric:
    """H = diag p - p p^T of every group (Prop. 3).

    Args:
        anchor: v_prev as `FlatParameters.groups` gives it: one [G, n] tensor per matrix size, a row per matrix.
            Coordinates are numbered in that order.
        times_size: whether each matrix's H is multiplied by its n, as the forms `normalised` and `decoupled` do.
    """
    weights = [torch.softmax(rows.double(), dim=1) * (rows.shape[1] if times_size else 1) for rows in anchor]
    sizes = torch.tensor([rows.shape[1] for rows in anchor for _ in range(rows.shape[0])])
    group = torch.arange(len(sizes)).repeat_interleave(sizes).to(anchor[0].device)
    return Metric(torch.cat([rows.flatten() for rows in weights]), group)
