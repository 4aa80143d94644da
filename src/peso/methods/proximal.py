"""The proximal term: how far an adapter has moved from its anchor.

A group is one A or one B matrix of one adapted module, flattened. Groups of equal size are rows of one tensor, so a
term costs a few operations per size, not per matrix. Everything runs in float32 (or float64 if given), whatever the
model computes in.

A term is built from the anchor once, which stays the same for a whole block. Its gradient needs no exponential but the
softmax's own: with p = softmax(v) and d = v - v_prev it is p (d - E_p[d]), the softmax's Jacobian times d, because
log(p / q) differs from d by a constant. It is written without the value, in pieces that stay in the processor's cache,
straight into the buffer that the optimizer reads.

Shapes: G groups of one size, N elements of a group.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from peso.methods.penalty import Penalty
from peso.types import PenaltyForm

ProximalTerm = Callable[[Sequence[Tensor], float], Penalty]
"""From the anchor's groups (one [G, N] tensor per size) and a strength to the term that pulls towards them."""

GROUPS_PER_MODULE = 2
"""A and B."""

_CACHE_ELEMENTS = 1 << 18
"""Elements of a piece on a CPU: its arrays stay in today's caches, and its work is worth two threads."""


_times_softmax_jacobian = torch.ops.aten._softmax_backward_data.out
"""(d, p, dim, dtype) to p (d - sum(p d)), written to `grad_input`."""


def softmax_kl(current_GN: Tensor, anchor_GN: Tensor) -> Tensor:
    """KL(softmax(v) || softmax(v_prev)) of each group, without cancellation.

    With q = softmax(v_prev), d = v - v_prev centred to E_q[d] = 0 and s = E_q[expm1(d)]:
    KL = E_q[(1 + expm1(d)) d] / (1 + s) - log1p(s). A difference of log-softmaxes loses every digit when |d| << 1; here
    each term is of the order of the result.

    Args:
        current_GN: v, [G, N]; the result is differentiable in it, once.
        anchor_GN: v_prev, [G, N], on the same device; no gradient flows into it.

    Returns:
        [G], float32 or wider, >= 0 up to rounding; for small d it is half the variance of d under q (Prop. 3).

    Source: PESO, Eq. 12. Differs from the authors' code, which adds 1e-8 to p, works in the model's dtype and clamps.
    """
    dtype = torch.promote_types(torch.promote_types(current_GN.dtype, anchor_GN.dtype), torch.float32)
    divergence_G: Tensor = _SoftmaxDivergence.apply(  # type: ignore[no-untyped-call]
        current_GN.to(dtype), anchor_GN.detach().to(dtype)
    )
    return divergence_G


class _SoftmaxDivergence(torch.autograd.Function):
    """`softmax_kl` in one dtype."""

    @staticmethod
    def forward(ctx: Any, current_GN: Tensor, anchor_GN: Tensor) -> Tensor:
        ctx.save_for_backward(current_GN, anchor_GN)
        divergence_G = torch.empty_like(current_GN[:, 0])
        for piece in _pieces(current_GN):
            divergence_G[piece] = _divergence(current_GN[piece], anchor_GN[piece])
        return divergence_G

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer_G: Tensor) -> tuple[Tensor, None]:
        current_GN, anchor_GN = ctx.saved_tensors
        gradient_GN = torch.zeros_like(current_GN, memory_format=torch.contiguous_format)
        add_divergence_gradient(current_GN, anchor_GN, gradient_GN)
        return gradient_GN.mul_(outer_G[:, None]), None


def _divergence(current_GN: Tensor, anchor_GN: Tensor) -> Tensor:
    """`softmax_kl` of a piece; sums run pairwise (a dot product's running sum would lose the third digit)."""
    q_GN = torch.softmax(anchor_GN, dim=1)
    delta_GN = current_GN - anchor_GN
    scratch_GN = q_GN * delta_GN
    delta_GN -= scratch_GN.sum(1, keepdim=True)
    weighted_GN = torch.expm1(delta_GN).mul_(q_GN)
    mean_growth_G = weighted_GN.sum(1)
    # E_q[d] is zero up to rounding; what is left of it must meet its like in log1p(s) before anything else does.
    rest_G = torch.mul(q_GN, delta_GN, out=scratch_GN).sum(1)
    moment_G = torch.mul(weighted_GN, delta_GN, out=scratch_GN).sum(1)
    mass_G = 1 + mean_growth_G
    return moment_G / mass_G + (rest_G / mass_G - torch.log1p(mean_growth_G))


def add_divergence_gradient(current_GN: Tensor, anchor_GN: Tensor, gradient_GN: Tensor, weight: float = 1.0) -> None:
    """Adds a weight times the gradient of `softmax_kl` summed over groups.

    Args:
        current_GN: v, float32 or float64 [G, N].
        anchor_GN: v_prev, like it.
        gradient_GN: like it; overwritten with the sum.
        weight: of the divergence.
    """
    for piece in _pieces(current_GN):
        p_GN = torch.softmax(current_GN[piece], dim=1)
        delta_GN = current_GN[piece] - anchor_GN[piece]
        # The softmax's own derivative in one kernel, in the place of d: fresh memory costs more than the sums.
        _times_softmax_jacobian(delta_GN, p_GN, 1, p_GN.dtype, grad_input=delta_GN)
        gradient_GN[piece].add_(delta_GN, alpha=weight)


def _pieces(groups_GN: Tensor) -> Iterator[slice]:
    """Groups that are worked on together, about as many in every piece."""
    num_groups = len(groups_GN)
    num_pieces = max(1, round(groups_GN.numel() / _CACHE_ELEMENTS)) if groups_GN.device.type == "cpu" else 1
    step = max(1, math.ceil(num_groups / num_pieces))
    return (slice(start, start + step) for start in range(0, num_groups, step))


class WeightedDivergence(Penalty):
    """A sum over sizes of a weight times the softmax-KL of the groups to their anchor."""

    def __init__(self, anchor: Sequence[Tensor], weights: Sequence[float]) -> None:
        """Keeps the anchor.

        Args:
            anchor: v_prev, one [G, N] tensor per size; it must not change.
            weights: one number per size.
        """
        self._anchor, self._weights = [one.detach() for one in anchor], weights
        super().__init__(self._sum)

    def _sum(self, current: Sequence[Tensor]) -> Tensor:
        parts = zip(current, self._anchor, self._weights, strict=True)
        return torch.stack([weight * softmax_kl(now, before).sum() for now, before, weight in parts]).sum()

    def add_gradient(self, groups: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """See `Penalty`; in closed form. Values, anchor and gradients are of one dtype, float32 or float64."""
        for now, before, weight, gradient in zip(groups, self._anchor, self._weights, gradients, strict=True):
            add_divergence_gradient(now.detach(), before, gradient, weight)


def squared_distance(current_GN: Tensor, anchor_GN: Tensor) -> Tensor:
    """||v - v_prev||^2 of each group, [G], float32 or wider (Eq. 11 with H the identity)."""
    dtype = torch.promote_types(torch.promote_types(current_GN.dtype, anchor_GN.dtype), torch.float32)
    return (current_GN.to(dtype) - anchor_GN.detach().to(dtype)).square().sum(1)


def paper_term(anchor: Sequence[Tensor], strength: float = 1.0) -> Penalty:
    """Sum over groups of their softmax-KL (Eq. 12 exactly). It shrinks as 1/N: nearly inactive for real adapters."""
    return WeightedDivergence(anchor, [strength] * len(anchor))


def official_term(anchor: Sequence[Tensor], strength: float = 1.0) -> Penalty:
    """Mean over modules of KL(A) + KL(B), as the authors' code weighs it (computed exactly, unlike there)."""
    num_groups = sum(len(groups) for groups in anchor)
    return WeightedDivergence(anchor, [strength * GROUPS_PER_MODULE / num_groups] * len(anchor))


def normalised_term(anchor: Sequence[Tensor], strength: float = 1.0) -> Penalty:
    """Sum over groups of N times their softmax-KL: about half the squared distance, at every width and rank."""
    return WeightedDivergence(anchor, [strength * groups.shape[1] for groups in anchor])


def l2_term(anchor: Sequence[Tensor], strength: float = 1.0) -> Penalty:
    """Half the squared distance (the L2 proximal rival of Fig. 2 and Cor. 2)."""

    def term(current: Sequence[Tensor]) -> Tensor:
        distances = [squared_distance(v, u).sum() for v, u in zip(current, anchor, strict=True)]
        return 0.5 * strength * torch.stack(distances).sum()

    return Penalty(term)


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


PROXIMAL_TERMS: dict[PenaltyForm, ProximalTerm] = {
    "paper": paper_term,
    "official": official_term,
    "normalised": normalised_term,
    "l2": l2_term,
}
