"""Frozen adapters of earlier blocks beside the one that trains, each with a magnitude of its own.

A layer computes W_0 x + s (m_1 B_1 A_1 + ... + m_n B_n A_n + m B A) x with A_i, B_i frozen, s = alpha / r, and A, B
the active PEFT adapter. The magnitudes may train along (SD-LoRA) or stay one (SumLoRA). PEFT can sum adapters too, but
not with magnitudes that train, and not in the one product per layer that `peso.lm.lora_linear` makes of it all.

Shapes: R summed rank of the past, r rank, n past adapters, I and O input and output features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from peso.lm.low_rank import LowRank, adapted_layers, read_low_rank

_PAST = "_past_adapters"


@dataclass(frozen=True, eq=False)
class PastAdapters:
    """What one layer keeps of the past.

    Attributes:
        a: float32 [R, I].
        b: float32 [O, R].
        magnitudes: float32 [n + 1], of each past adapter, then of the current one.
        owner: int64 [R], which magnitude each column of `b` is multiplied by.
    """

    a: Tensor
    b: Tensor
    magnitudes: nn.Parameter
    owner: Tensor


def freeze_past(model: PeftModel, past: Sequence[LowRank], learns_magnitudes: bool) -> None:
    """Puts past adapters under the active one; replaces any that are there.

    Args:
        model: one whose LoRA layers went through `peso.lm.lora_linear.merge_products`.
        past: the frozen updates, none to take them away.
        learns_magnitudes: whether magnitudes are to train; they start at one.
    """
    for name, layer in adapted_layers(model).items():
        layer.__dict__.pop(_PAST, None)
        if past:
            a, b = torch.cat([one.a[name] for one in past]), torch.cat([one.b[name] for one in past], dim=1)
            magnitudes = nn.Parameter(torch.ones(len(past) + 1, device=a.device), requires_grad=learns_magnitudes)
            owner = torch.repeat_interleave(
                torch.arange(len(past), device=a.device), torch.tensor([one.rank for one in past], device=a.device)
            )
            layer.__dict__[_PAST] = PastAdapters(a, b, magnitudes, owner)


def past_of(layer: Any) -> PastAdapters | None:
    """What a LoRA layer keeps of the past; None without any."""
    past: PastAdapters | None = layer.__dict__.get(_PAST)
    return past


def magnitude_parameters(model: PeftModel) -> list[tuple[str, nn.Parameter]]:
    """The magnitudes that train, named such as `layers.0.self_attn.q_proj.magnitudes`."""
    found = [(name, past_of(layer)) for name, layer in adapted_layers(model).items()]
    return [(f"{name}.magnitudes", p.magnitudes) for name, p in found if p is not None and p.magnitudes.requires_grad]


def scaled_factors(layer: LoraLinear) -> tuple[Tensor, Tensor, float]:
    """A [R + r, I], B [O, R + r] and a number s: everything a layer adds to its frozen weight is s B A.

    Args:
        layer: with one active adapter; gradients flow to it and to magnitudes that train.
    """
    name = layer.active_adapters[0]
    a, b, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    past = past_of(layer)
    if past is None:
        return a, b, scale
    own = b * past.magnitudes[-1]
    return torch.cat([past.a, a]), torch.cat([past.b * past.magnitudes[past.owner], own], dim=1), scale


def factors(layer: LoraLinear) -> tuple[Tensor, Tensor]:
    """A [R + r, I] and B [O, R + r] of everything a layer adds to its frozen weight, s and magnitudes in B.

    Args:
        layer: with one active adapter; gradients flow to it and to magnitudes that train.
    """
    a, b, scale = scaled_factors(layer)
    return a, b * scale


@torch.no_grad()
def whole_update(model: PeftModel) -> LowRank:
    """Everything the adapter adds as one update: the past, then the current adapter, magnitudes in B."""
    layers = adapted_layers(model)
    if all(past_of(layer) is None for layer in layers.values()):
        return read_low_rank(model)
    a, b = {}, {}
    for name, layer in layers.items():
        a[name], b[name], _ = scaled_factors(layer)
    return LowRank(a, b)
