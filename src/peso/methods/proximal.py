"""The proximal term: how far an adapter has moved from its anchor.

A group is one A or one B matrix of one adapted module, flattened. Groups of equal size are rows of one tensor, so a
term costs a few operations per size, not per matrix. Everything runs in float32 (or float64 if given), whatever the
model computes in.

A term is built from the anchor once, which stays the same for a whole block, and then called at every step. Value and
gradient come out of the same pass over the adapter, in pieces that stay in the processor's cache.

Shapes: G groups of one size, N elements of a group.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from peso.types import PenaltyForm

Term = Callable[[Sequence[Tensor]], Tensor]
"""From current groups (one [G, N] tensor per size) to a scalar that is differentiable in them, once."""

ProximalTerm = Callable[[Sequence[Tensor]], Term]
"""From the anchor's groups to the term that pulls towards them."""

GROUPS_PER_MODULE = 2
"""A and B."""

_CACHE_ELEMENTS = 1 << 17
"""Elements of a piece on a CPU: its five float32 arrays fit the caches of today's cores, and its work two threads."""


class SoftmaxAnchor:
    """The anchor's groups of one size, with what their softmax-KL needs of them."""

    def __init__(self, anchor_GN: Tensor) -> None:
        """Computes q = softmax(v_prev) of each group.

        Args:
            anchor_GN: v_prev, [G, N]; no gradient flows into it.
        """
        self.dtype = torch.promote_types(anchor_GN.dtype, torch.float32)
        self.values_GN = anchor_GN.detach().to(self.dtype)
        self.q_GN = torch.softmax(self.values_GN, dim=1)

    def divergence(self, current_GN: Tensor) -> Tensor:
        """KL(softmax(v) || softmax(v_prev)) of each group, without cancellation.

        With d = v - v_prev centred to E_q[d] = 0 and s = E_q[expm1(d)]:
        KL = E_q[(1 + expm1(d)) d] / (1 + s) - log1p(s). A difference of log-softmaxes loses every digit when |d| << 1;
        here each term is of the order of the result. The gradient is p (log(p / q) - KL) with
        p = q (1 + expm1(d)) / (1 + s) and log(p / q) = d - log1p(s).

        Args:
            current_GN: v, [G, N], on the anchor's device.

        Returns:
            [G], float32 or wider, >= 0 up to rounding; for small d it is half the variance of d under q (Prop. 3).

        Source: PESO, Eq. 12. Differs from the authors' code, which adds 1e-8 to p, works in the model's dtype and
        clamps.
        """
        dtype = torch.promote_types(current_GN.dtype, self.dtype)
        divergence_G: Tensor = _SoftmaxDivergence.apply(  # type: ignore[no-untyped-call]
            current_GN.to(dtype), self.values_GN.to(dtype), self.q_GN.to(dtype)
        )
        return divergence_G


class _SoftmaxDivergence(torch.autograd.Function):
    """Value and gradient of `SoftmaxAnchor.divergence` in one pass."""

    @staticmethod
    def forward(ctx: Any, current_GN: Tensor, anchor_GN: Tensor, q_GN: Tensor) -> Tensor:
        divergence_G = torch.empty_like(current_GN[:, 0])
        gradient_GN = torch.empty_like(current_GN, memory_format=torch.contiguous_format)
        num_groups, size = current_GN.shape
        step = max(1, _CACHE_ELEMENTS // size) if current_GN.device.type == "cpu" else num_groups
        for piece in (slice(start, start + step) for start in range(0, num_groups, step)):
            _write_divergence(current_GN[piece], anchor_GN[piece], q_GN[piece], divergence_G[piece], gradient_GN[piece])
        ctx.save_for_backward(gradient_GN)
        return divergence_G

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer_G: Tensor) -> tuple[Tensor, None, None]:
        (gradient_GN,) = ctx.saved_tensors
        return gradient_GN * outer_G[:, None], None, None


def _write_divergence(
    current_GN: Tensor, anchor_GN: Tensor, q_GN: Tensor, divergence_G: Tensor, gradient_GN: Tensor
) -> None:
    """Fills the last two arguments; sums run pairwise (a dot product's running sum would lose the third digit)."""
    delta_GN = current_GN - anchor_GN
    scratch_GN = q_GN * delta_GN
    delta_GN -= scratch_GN.sum(1, keepdim=True)
    weighted_GN = torch.expm1(delta_GN, out=gradient_GN).mul_(q_GN)
    mean_growth_G = weighted_GN.sum(1)
    mass_G, log_mass_G = 1 + mean_growth_G, torch.log1p(mean_growth_G)
    # E_q[d] is zero up to rounding; what is left of it must meet its like in log1p(s) before anything else does.
    rest_G = torch.mul(q_GN, delta_GN, out=scratch_GN).sum(1)
    moment_G = torch.mul(weighted_GN, delta_GN, out=scratch_GN).sum(1)
    divergence_G.copy_(moment_G / mass_G + (rest_G / mass_G - log_mass_G))
    delta_GN -= (log_mass_G + divergence_G)[:, None]
    delta_GN /= mass_G[:, None]
    weighted_GN.add_(q_GN).mul_(delta_GN)


def softmax_kl(current_GN: Tensor, anchor_GN: Tensor) -> Tensor:
    """KL(softmax(v) || softmax(v_prev)) of each group, [G]; see `SoftmaxAnchor.divergence`."""
    return SoftmaxAnchor(anchor_GN).divergence(current_GN)


def squared_distance(current_GN: Tensor, anchor_GN: Tensor) -> Tensor:
    """||v - v_prev||^2 of each group, [G], float32 or wider (Eq. 11 with H the identity)."""
    dtype = torch.promote_types(torch.promote_types(current_GN.dtype, anchor_GN.dtype), torch.float32)
    return (current_GN.to(dtype) - anchor_GN.detach().to(dtype)).square().sum(1)


def paper_term(anchor: Sequence[Tensor]) -> Term:
    """Sum over groups of their softmax-KL (Eq. 12 exactly). It shrinks as 1/N: nearly inactive for real adapters."""
    return _weighted_divergence(anchor, [1.0] * len(anchor))


def official_term(anchor: Sequence[Tensor]) -> Term:
    """Mean over modules of KL(A) + KL(B), as the authors' code weighs it (computed exactly, unlike there)."""
    num_groups = sum(len(groups) for groups in anchor)
    return _weighted_divergence(anchor, [GROUPS_PER_MODULE / num_groups] * len(anchor))


def normalised_term(anchor: Sequence[Tensor]) -> Term:
    """Sum over groups of N times their softmax-KL: about half the squared distance, at every width and rank."""
    return _weighted_divergence(anchor, [float(groups.shape[1]) for groups in anchor])


def l2_term(anchor: Sequence[Tensor]) -> Term:
    """Half the squared distance (the L2 proximal rival of Fig. 2 and Cor. 2)."""

    def term(current: Sequence[Tensor]) -> Tensor:
        distances = [squared_distance(v, u).sum() for v, u in zip(current, anchor, strict=True)]
        return 0.5 * torch.stack(distances).sum()

    return term


def by_rank(groups: Sequence[Tensor], names: Sequence[Sequence[str]], rank: int) -> list[Tensor]:
    """Smaller groups: each row of A and each column of B on its own (the per-rank ablation of Fig. 2).

    Args:
        groups: one [G, N] tensor per size.
        names: of the groups, ending in `lora_A` or `lora_B`.
        rank: r; A is [r, N / r] and B [N / r, r].

    Returns:
        One [G r, N / r] tensor per size, differentiable in the groups.
    """
    regrouped = []
    for groups_GN, names_G in zip(groups, names, strict=True):
        rows = [
            one.view(rank, -1) if name.endswith("lora_A") else one.view(-1, rank).T
            for one, name in zip(groups_GN, names_G, strict=True)
        ]
        regrouped.append(torch.cat(rows))
    return regrouped


def _weighted_divergence(anchor: Sequence[Tensor], weights: Sequence[float]) -> Term:
    """Sum over sizes of a weight times the sum of the groups' softmax-KL."""
    anchors = [SoftmaxAnchor(groups) for groups in anchor]

    def term(current: Sequence[Tensor]) -> Tensor:
        sums = [
            weight * one.divergence(groups).sum() for groups, one, weight in zip(current, anchors, weights, strict=True)
        ]
        return torch.stack(sums).sum()

    return term


PROXIMAL_TERMS: dict[PenaltyForm, ProximalTerm] = {
    "paper": paper_term,
    "official": official_term,
    "normalised": normalised_term,
    "l2": l2_term,
}
