"""The proximal term: how far an adapter has moved from its anchor, as pure functions of tensors.

A group is one A or one B matrix of one adapted module, flattened. Groups of equal size are rows of one tensor, so a
term costs a few operations per size, not per matrix. Everything runs in float32 (or float64 if given), whatever the
model computes in.

Shapes: G groups of one size, N elements of a group.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from peso.types import ProximalScaling

ProximalTerm = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""From current and anchor groups (one [G, N] tensor per size each) to a scalar."""

GROUPS_PER_MODULE = 2
"""A and B."""


def softmax_kl(current_GN: Tensor, anchor_GN: Tensor) -> Tensor:
    """KL(softmax(v) || softmax(v_prev)) of each group, without cancellation.

    With q = softmax(v_prev), d = v - v_prev centred to E_q[d] = 0 and s = E_q[expm1(d)]:
    KL = E_q[(1 + expm1(d)) d] / (1 + s) - log1p(s). A difference of log-softmaxes loses every digit when |d| << 1;
    here each term is of the order of the result. Since E_q[d] = 0, E_q[(1 + expm1(d)) d] = E_q[expm1(d) d].

    Args:
        current_GN: v, [G, N].
        anchor_GN: v_prev, [G, N]; no gradient flows into it.

    Returns:
        [G], float32 or wider, >= 0 up to rounding; for small d it is half the variance of d under q (Prop. 3).

    Source: PESO, Eq. 12. Differs from the authors' code, which adds 1e-8 to p, works in the model's dtype and clamps.
    """
    dtype = torch.promote_types(torch.promote_types(current_GN.dtype, anchor_GN.dtype), torch.float32)
    anchor_GN = anchor_GN.detach().to(dtype)
    q_GN = torch.softmax(anchor_GN, dim=1)
    delta_GN = current_GN.to(dtype) - anchor_GN
    delta_GN = delta_GN - (q_GN * delta_GN).sum(1, keepdim=True)
    growth_GN = torch.expm1(delta_GN)
    weighted_GN = q_GN * growth_GN
    mean_growth_G = weighted_GN.sum(1)
    return (weighted_GN * delta_GN).sum(1) / (1 + mean_growth_G) + (
        (q_GN * delta_GN).sum(1) / (1 + mean_growth_G) - torch.log1p(mean_growth_G)
    )


def squared_distance(current_GN: Tensor, anchor_GN: Tensor) -> Tensor:
    """||v - v_prev||^2 of each group, [G], float32 or wider (Eq. 11 with H the identity)."""
    dtype = torch.promote_types(torch.promote_types(current_GN.dtype, anchor_GN.dtype), torch.float32)
    return (current_GN.to(dtype) - anchor_GN.detach().to(dtype)).square().sum(1)


def paper_term(current: Sequence[Tensor], anchor: Sequence[Tensor]) -> Tensor:
    """Sum over groups of their softmax-KL (Eq. 12 exactly). It shrinks as 1/N: nearly inactive for real adapters."""
    return _total(softmax_kl(v, u).sum() for v, u in zip(current, anchor, strict=True))


def official_term(current: Sequence[Tensor], anchor: Sequence[Tensor]) -> Tensor:
    """Mean over modules of KL(A) + KL(B), as the authors' code weighs it (computed exactly, unlike there)."""
    num_groups = sum(len(v) for v in current)
    return paper_term(current, anchor) * (GROUPS_PER_MODULE / num_groups)


def normalised_term(current: Sequence[Tensor], anchor: Sequence[Tensor]) -> Tensor:
    """Sum over groups of N times their softmax-KL: about half the squared distance, at every width and rank."""
    return _total(v.shape[1] * softmax_kl(v, u).sum() for v, u in zip(current, anchor, strict=True))


def l2_term(current: Sequence[Tensor], anchor: Sequence[Tensor]) -> Tensor:
    """Half the squared distance (the L2 proximal rival of Fig. 2 and Cor. 2)."""
    return _total(0.5 * squared_distance(v, u).sum() for v, u in zip(current, anchor, strict=True))


def _total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


PROXIMAL_TERMS: dict[ProximalScaling, ProximalTerm] = {
    "paper": paper_term,
    "official": official_term,
    "normalised": normalised_term,
    "l2": l2_term,
}
