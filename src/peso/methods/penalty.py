"""What a method adds to the cross-entropy: a scalar of the adapter's groups.

Training wants its gradient at every step and its value never, so a penalty that knows its gradient in closed form
writes it without the value.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Penalty:
    """A scalar whose gradient is found by differentiating it."""

    def __init__(self, value: Callable[[Sequence[Tensor]], Tensor]) -> None:
        """Keeps the scalar.

        Args:
            value: from the adapter's groups, one [G, N] tensor per matrix size, to a scalar differentiable in them.
        """
        self._value = value

    def __call__(self, groups: Sequence[Tensor]) -> Tensor:
        """The scalar; differentiable in the groups, once."""
        return self._value(groups)

    def add_gradient(self, groups: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Adds the gradient at the current groups.

        Args:
            groups: current values, one [G, N] tensor per matrix size; no gradient flows back.
            gradients: laid out alike, overwritten with their sum with the penalty's.
        """
        leaves = [one.detach().requires_grad_() for one in groups]
        with torch.enable_grad():
            found = torch.autograd.grad(self(leaves), leaves)
        for gradient, one in zip(gradients, found, strict=True):
            gradient.add_(one)
