"""A Llama-like decoder layer as four matrices: norms, the scale of attention and the adapter are put into them.

Everything here is a function of the layer's own parameters, and differentiable in those that train.

Shapes: I and O input and output features, r rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from peso.lm.lora_linear import can_merge
from peso.lm.past_adapters import factors

_CACHE = "_folded_weights"


class UnknownLayerError(Exception):
    """A layer computes something else than this module describes."""


@dataclass(frozen=True, eq=False)
class Product:
    """y = x W^T.

    Attributes:
        weight: W [O, I], the adapter included; it has a gradient where the layer's own weights train.
        a: A [r, I], the adapters of all parts on top of one another; empty without one.
        b: B [O, r], the parts' own on the diagonal, so that W = W_0 + B A; empty without an adapter.
    """

    weight: Tensor
    a: Tensor
    b: Tensor


@dataclass(frozen=True, eq=False)
class _Part:
    """One linear layer of a product, and what goes into its rows."""

    layer: nn.Module
    scale: float = 1.0
    pairs_of: int = 0  # head width whose halves become neighbouring pairs; 0 leaves the rows in order

    @property
    def base_weight(self) -> Tensor:
        layer = self.layer.get_base_layer() if isinstance(self.layer, LoraLinear) else self.layer
        if type(layer) is not nn.Linear or layer.bias is not None:
            raise UnknownLayerError("a layer is more than one matrix")
        if isinstance(layer.weight, DTensor):
            raise UnknownLayerError("a layer is in shards")
        return layer.weight

    def rows(self, matrix: Tensor) -> Tensor:
        if self.pairs_of:
            matrix = matrix.unflatten(0, (-1, 2, self.pairs_of // 2)).transpose(1, 2).flatten(0, 2)
        return matrix if self.scale == 1.0 else matrix * self.scale


def folded_products(layer: Any) -> tuple[Product, Product, Product, Product]:
    """Query, key and value in one; out; gate and up in one; down.

    Rows of queries and keys are reordered so that a head's rotated halves are neighbouring pairs, which no product of
    a query and a key notices; queries carry the scale of attention. The first and the third expect states normed to
    length sqrt(D), without a norm's weight.

    Args:
        layer: a decoder layer of `transformers`, plain or with an adapter injected.

    Raises:
        UnknownLayerError: it has other parts, or an adapter that is more than one B A.
    """
    try:
        attention, feed_forward = layer.self_attn, layer.mlp
        width = attention.head_dim
        queries = _Part(attention.q_proj, attention.scaling, width)
        if type(feed_forward.act_fn).__name__ not in ("SiLU", "SiLUActivation"):
            raise UnknownLayerError("the feed-forward part is gated by something else than SiLU")
        heads = [queries, _Part(attention.k_proj, pairs_of=width), _Part(attention.v_proj)]
        gates = [_Part(feed_forward.gate_proj), _Part(feed_forward.up_proj)]
        return (
            _folded(heads, layer.input_layernorm.weight),
            _folded([_Part(attention.o_proj)], None),
            _folded(gates, layer.post_attention_layernorm.weight),
            _folded([_Part(feed_forward.down_proj)], None),
        )
    except AttributeError as error:
        raise UnknownLayerError(f"a part is missing: {error}") from None


def norm_epsilons(layer: Any) -> tuple[float, float]:
    """Of the norms in front of attention and of the feed-forward part.

    Raises:
        UnknownLayerError: they are other norms.
    """
    try:
        return layer.input_layernorm.variance_epsilon, layer.post_attention_layernorm.variance_epsilon
    except AttributeError as error:
        raise UnknownLayerError(f"a part is missing: {error}") from None


def _folded(parts: Sequence[_Part], norm: Tensor | None) -> Product:
    adapted = [part for part in parts if isinstance(part.layer, LoraLinear)]
    weights = [part.base_weight for part in parts] + ([] if norm is None else [norm])
    trains = [weight.requires_grad for weight in weights]
    nothing = weights[0].new_empty(0)
    if any(trains):
        if adapted:
            raise UnknownLayerError("weights and an adapter on them train together")
        return Product(_base(parts, norm), nothing, nothing)
    base = _remembered(parts, norm, weights)
    if not adapted:
        return Product(base, nothing, nothing)
    factors = [_factors(part) for part in parts]
    a = torch.cat([a for a, _ in factors])
    a = a if norm is None else a * norm
    b = factors[0][1] if len(parts) == 1 else torch.block_diag(*[b for _, b in factors])
    with torch.no_grad():
        merged = torch.addmm(base, b, a)
    return Product(merged, a, b)


def _base(parts: Sequence[_Part], norm: Tensor | None) -> Tensor:
    stacked = torch.cat([part.rows(part.base_weight) for part in parts])
    return stacked if norm is None else stacked * norm


def _remembered(parts: Sequence[_Part], norm: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
    """The frozen weights folded, kept until one of them changes."""
    state = [(weight.data_ptr(), weight._version) for weight in weights]
    cache = parts[0].layer.__dict__
    if _CACHE not in cache or cache[_CACHE][0] != state:
        with torch.inference_mode(False), torch.no_grad():  # later passes may keep it for their way back
            cache[_CACHE] = (state, _base(parts, norm))
    folded: Tensor = cache[_CACHE][1]
    return folded


def _factors(part: _Part) -> tuple[Tensor, Tensor]:
    """A [r, I] and B [O, r] of a part, with the adapter's scale in B; of rank 0 without an adapter."""
    layer = part.layer
    if not isinstance(layer, LoraLinear):
        weight = part.base_weight
        return weight.new_empty(0, weight.shape[1]), weight.new_empty(weight.shape[0], 0)
    if not can_merge(layer):
        raise UnknownLayerError("an adapter is more than one B A")
    a, b = factors(layer)
    return a, part.rows(b)
