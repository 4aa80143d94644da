"""RMS norms and gated feed-forward layers with the way back written out: fewer passes over the same numbers.

Modules are recognised by what they compute, not by their names: a layer is changed only if it gives the same result
on a probe, so that a model that differs in a detail keeps its own code.

Shapes: T tokens, D width, F inner width.
"""

from collections.abc import Callable
from copy import deepcopy
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

_PROBE_TOKENS = 3
_TOLERANCE = 1e-5


class RmsNorm(torch.autograd.Function):
    """y = w x / sqrt(mean x^2 + epsilon)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        """Keeps the normed states and each token's scale for the way back."""
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight_D)
        return normed * weight_D

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """By the quotient rule: dx = r (w dy - n mean(w dy n)) with n = r x; dw = sum dy n."""
        normed, scale, weight_D = ctx.saved_tensors
        dy = gradients[0]
        inner = dy * weight_D
        along = torch.linalg.vecdot(inner, normed).unsqueeze(-1).div_(normed.shape[-1])
        dx = inner.addcmul_(normed, along, value=-1).mul_(scale)
        dw = (dy * normed).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return dx, dw, None


class GatedProduct(torch.autograd.Function):
    """h = silu(g) u."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """Keeps both factors for the way back."""
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """By the product rule: dg = silu'(g) u dh, du = silu(g) dh."""
        gate, up = ctx.saved_tensors
        dh = gradients[0]
        slope = torch.sigmoid(gate)
        active = gate * slope
        d_up = active * dh
        # silu' = s (1 + g (1 - s)) = s + silu (1 - s)
        slope = torch.addcmul(slope, active, 1 - slope)
        return slope.mul_(dh).mul_(up), d_up


def write_out_layers(model: PreTrainedModel, is_mapped: bool = False) -> None:
    """Changes the layers of a model that the two formulas describe, in place; float32 models only.

    Args:
        model: a plain backbone or one with an adapter injected.
        is_mapped: whether its weights are better left in their file: probes then go through copies with random ones.
    """
    if model.dtype != torch.float32:
        return
    for module in model.modules():
        epsilon = getattr(module, "variance_epsilon", None)
        weight, gate = getattr(module, "weight", None), getattr(module, "gate_proj", None)
        if isinstance(epsilon, float) and isinstance(weight, Tensor):
            _change_if_equal(module, _norm, len(weight), is_mapped)
        elif isinstance(gate, nn.Linear) and all(hasattr(module, name) for name in ("up_proj", "down_proj")):
            _change_if_equal(module, _feed_forward, gate.in_features, is_mapped)


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    if hidden_states.dtype != self.weight.dtype or torch.is_autocast_enabled(hidden_states.device.type):
        return type(self).forward(self, hidden_states)
    normed: Tensor = RmsNorm.apply(  # type: ignore[no-untyped-call]
        hidden_states, self.weight, self.variance_epsilon
    )
    return normed


def _feed_forward(self: Any, x: Tensor) -> Tensor:
    gated = GatedProduct.apply(self.gate_proj(x), self.up_proj(x))  # type: ignore[no-untyped-call]
    return self.down_proj(gated)


@torch.no_grad()
def _change_if_equal(module: nn.Module, forward: Callable[..., Tensor], width: int, is_mapped: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = next(module.parameters())
    probe = torch.randn(1, _PROBE_TOKENS, width, generator=generator).to(weight.device)
    probed = _with_random_weights(module, generator) if is_mapped else module
    was_training = probed.training
    probed.eval()
    theirs, ours = type(module).forward(probed, probe), forward(probed, probe)
    probed.train(was_training)
    if torch.allclose(theirs, ours, rtol=_TOLERANCE, atol=_TOLERANCE * float(theirs.abs().max())):
        module.__dict__["forward"] = MethodType(forward, module)


def _with_random_weights(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy for which none of the module's own weights is read; products of theirs are as large as their inputs."""
    random = {
        id(own): nn.Parameter(torch.randn(own.shape, generator=generator) / own.shape[-1] ** 0.5)
        for own in module.parameters()
    }
    return deepcopy(module, random)
