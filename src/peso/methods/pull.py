"""The decoupled proximal step: after the optimizer's steps, a pull towards the anchor in closed form.

A proximal term in the loss goes through Adam, which divides every coordinate's gradient by its own size: where the
cross-entropy is loud the term is silenced, and its strength means something else at every width, batch and rate. Here
the optimizer sees the cross-entropy alone, and what follows solves, per group,

    min_v  1/2 ||v - u||^2 + c/2 N (v - a)^T H (v - a),    H = diag q - q q^T,  q = softmax(a),  c = rate x strength,

with u the parameters after the optimizer's step (or after a few, with the sum of their rates), a the anchor and N the
group's size: the proximal operator of strength times the local form of PESO's term (Prop. 3), made independent of size.
Adam moves a coordinate by at most about its rate per step, so at balance none is further than about 1 / strength from
its anchor, whatever the width, the rank or the learning rate. Other metrics H: `peso.methods.anchor_metrics`.

Shapes: G groups of one size, N elements of a group.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Pull = Callable[[Sequence[Tensor], float], None]
"""Moves current groups (one [G, N] tensor per size) towards their anchor, in place, given the sum of the learning rates
of the steps since the last pull."""


class SoftmaxPull:
    """The pull of one size of groups."""

    def __init__(self, anchor_GN: Tensor, strength: float) -> None:
        """Computes what does not change during a block.

        Args:
            anchor_GN: a, float32 [G, N]; kept as it is, so it must not change.
            strength: at least 0; 0 moves nothing.
        """
        self._anchor_GN = anchor_GN
        # An element to which the softmax gives nothing has an infinite one, and is not moved.
        self._inverse_GN = torch.softmax(anchor_GN, dim=1).mul_(anchor_GN.shape[1]).reciprocal_()
        self._strength = strength
        # Fresh memory at every step would cost more than the arithmetic.
        self._weight_GN, self._delta_GN = torch.empty_like(anchor_GN), torch.empty_like(anchor_GN)

    @torch.no_grad()
    def __call__(self, current_GN: Tensor, rate: float) -> None:
        """One closed-form step, stable at every strength; rate 0 moves nothing.

        With d = u - a and w = 1 / (c + 1 / (N q)), Sherman and Morrison's formula gives v = u - c w (d - m), where
        m = sum(w d) / sum(w): a shift common to the group, to which a softmax is blind, is left alone.

        Args:
            current_GN: u, float32 [G, N], overwritten with v.
            rate: learning rate of the optimizer's step, or the sum of several's.
        """
        c = rate * self._strength
        weight_GN = torch.add(self._inverse_GN, c, out=self._weight_GN).reciprocal_()
        pull_GN = torch.sub(current_GN, self._anchor_GN, out=self._delta_GN).mul_(weight_GN)
        shift_G1 = pull_GN.sum(1, keepdim=True).div_(weight_GN.sum(1, keepdim=True))
        current_GN.sub_(pull_GN.addcmul_(weight_GN, shift_G1, value=-1), alpha=c)


def softmax_pull(anchor: Sequence[Tensor], strength: float) -> Pull:
    """The pull of all groups of a part.

    Args:
        anchor: the groups after the previous block, one float32 [G, N] tensor per size.
        strength: see `SoftmaxPull`.
    """
    return together([SoftmaxPull(groups, strength) for groups in anchor])


def together(pulls: Sequence[Callable[[Tensor, float], None]]) -> Pull:
    """The pull of a part from that of each size of its groups."""

    def pull(current: Sequence[Tensor], rate: float) -> None:
        for one, groups in zip(pulls, current, strict=True):
            one(groups, rate)

    return pull
