"""Cross-entropy over a whole catalogue, with the gradient in the same pass.

The scores [T, N] are by far the largest tensor of a small network. Here they are made, turned into probabilities and
used for the gradient in place, a piece at a time, which takes little more than the three matrix products.

Shapes: T targets, N candidate items, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_PIECE = 256
"""Targets whose scores are held at once."""


def softmax_loss(states_TD: Tensor, table_ND: Tensor, labels_T: Tensor) -> Tensor:
    """Sum over targets of the negative log-probability of its item, differentiable once in states and table.

    Args:
        states_TD: float32 or float64 [T, D].
        table_ND: of the same kind, [N, D], a row per candidate; its product with a state is the candidate's score.
        labels_T: int64 [T], each target's row of the table.

    Returns:
        A scalar, nats.
    """
    loss: Tensor = _SoftmaxLoss.apply(states_TD, table_ND, labels_T)  # type: ignore[no-untyped-call]
    return loss


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states_TD: Tensor, table_ND: Tensor, labels_T: Tensor) -> Tensor:
        total = states_TD.new_zeros(())
        state_gradient_TD, table_gradient_ND = torch.empty_like(states_TD), torch.zeros_like(table_ND)
        pieces = (states_TD, state_gradient_TD, labels_T.unsqueeze(1))
        for states, state_gradient, labels in zip(*(tensor.split(_PIECE) for tensor in pieces), strict=True):
            scores = states @ table_ND.T
            highest = scores.amax(1, keepdim=True)
            wanted = scores.gather(1, labels)
            probabilities = scores.sub_(highest).exp_()
            mass = probabilities.sum(1, keepdim=True)
            total += (highest + mass.log() - wanted).sum()
            slope = probabilities.div_(mass).scatter_add_(1, labels, torch.full_like(mass, -1.0))
            torch.mm(slope, table_ND, out=state_gradient)
            table_gradient_ND.addmm_(slope.T, states)
        ctx.save_for_backward(state_gradient_TD, table_gradient_ND)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, None]:
        state_gradient_TD, table_gradient_ND = ctx.saved_tensors
        return outer * state_gradient_TD, outer * table_gradient_ND, None
