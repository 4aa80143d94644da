"""The decoupled proximal step: after the optimizer's step, a pull towards the anchor in closed form.

A proximal term in the loss goes through Adam, which divides every coordinate's gradient by its own size: where the
cross-entropy is loud the term is silenced, and its strength means something else at every width, batch and rate. Here
the optimizer sees the cross-entropy alone, and what follows solves, per group,

    min_v  1/2 ||v - u||^2 + c/2 N (v - a)^T H (v - a),    H = diag q - q q^T,  q = softmax(a),  c = rate x strength,

with u the parameters after the optimizer's step, a the anchor and N the group's size: the proximal operator of
strength times the local form of PESO's term (Prop. 3), made independent of size. Adam moves a coordinate by at most
about its rate per step, so at balance none is further than about 1 / strength from its anchor, whatever the width,
the rank or the learning rate.

Shapes: G groups of one size, N elements of a group.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Pull = Callable[[Sequence[Tensor], float], None]
"""Moves current groups (one [G, N] tensor per size) towards their anchor, in place, given the step's learning rate."""


class SoftmaxPull:
    """The pull of one size of groups."""

    def __init__(self, anchor_GN: Tensor, strength: float) -> None:
        """Computes what does not change during a block.

        Args:
            anchor_GN: a, float32 [G, N]; kept as it is, so it must not change.
            strength: at least 0; 0 moves nothing.
        """
        self._anchor_GN = anchor_GN
        self._q_GN = torch.softmax(anchor_GN, dim=1)
        self._one = anchor_GN.new_ones(())
        self._strength = strength * anchor_GN.shape[1]

    @torch.no_grad()
    def __call__(self, current_GN: Tensor, rate: float) -> None:
        """One closed-form step, stable at every strength.

        With d = u - a and D = 1 + c N q, Sherman and Morrison's formula gives v = a + m + (d - m) / D, where
        m = sum(q d / D) / sum(q / D): a shift common to the group, to which a softmax is blind, is left alone.

        Args:
            current_GN: u, float32 [G, N], overwritten with v.
            rate: learning rate of the optimizer's step.
        """
        kept_GN = torch.add(self._one, self._q_GN, alpha=rate * self._strength).reciprocal_()
        weight_GN = self._q_GN * kept_GN
        delta_GN = current_GN - self._anchor_GN
        shift_G1 = torch.linalg.vecdot(weight_GN, delta_GN).div_(weight_GN.sum(1)).unsqueeze(1)
        torch.addcmul(self._anchor_GN, delta_GN.sub_(shift_G1), kept_GN, out=current_GN).add_(shift_G1)


def softmax_pull(anchor: Sequence[Tensor], strength: float) -> Pull:
    """The pull of all groups of a part.

    Args:
        anchor: the groups after the previous block, one float32 [G, N] tensor per size.
        strength: see `SoftmaxPull`.
    """
    pulls = [SoftmaxPull(groups, strength) for groups in anchor]

    def pull(current: Sequence[Tensor], rate: float) -> None:
        for one, groups in zip(pulls, current, strict=True):
            one(groups, rate)

    return pull
