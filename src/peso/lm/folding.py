"""A Llama-like decoder layer as four matrices: norms, the scale of attention and the adapter are put into them.

Everything here is a function of the layer's own parameters; gradients find their way to those that train.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from peso.lm.lora_linear import can_merge
from peso.lm.past_adapters import scaled_factors
from peso.lm.product import AdaptedRows, Product, in_pairs, with_adapters

_CACHE = "_folded_weights"


class UnknownLayerError(Exception):
    """A layer computes something else than this module describes."""


@dataclass(frozen=True, eq=False)
class _Part:
    """One linear layer of a product, and what goes into its rows."""

    layer: nn.Module
    scale: float = 1.0
    pairs_of: int = 0  # head width whose halves become neighbouring pairs; 0 leaves the rows in order

    @property
    def base_weight(self) -> Tensor:
        layer = self.layer.base_layer if isinstance(self.layer, LoraLinear) else self.layer
        if type(layer) is not nn.Linear or layer.bias is not None:
            raise UnknownLayerError("a layer is more than one matrix")
        weight = layer.weight
        if isinstance(weight, DTensor):
            raise UnknownLayerError("a layer is in shards")
        return weight

    def rows(self) -> Tensor:
        matrix = in_pairs(self.base_weight, self.pairs_of)
        return matrix if self.scale == 1.0 else matrix * self.scale

    def adapted(self, first_row: int, norm: Tensor | None) -> AdaptedRows:
        assert isinstance(self.layer, LoraLinear)
        if not can_merge(self.layer):
            raise UnknownLayerError("an adapter is more than one B A")
        a, b, scale = scaled_factors(self.layer)
        return AdaptedRows.fold(first_row, a, b, scale * self.scale, norm, self.pairs_of)


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


def forget_folded(model: nn.Module) -> None:
    """Drops what is remembered of a model's weights, for a change that torch does not count (`weight.data += ...`)."""
    for module in model.modules():
        module.__dict__.pop(_CACHE, None)


def _folded(parts: Sequence[_Part], norm: Tensor | None) -> Product:
    bases = [part.base_weight for part in parts]
    weights = bases if norm is None else [*bases, norm]
    is_adapted = [isinstance(part.layer, LoraLinear) for part in parts]
    if any(weight.requires_grad for weight in weights):
        if any(is_adapted):
            raise UnknownLayerError("weights and an adapter on them train together")
        return Product(_base(parts, norm))
    base = _remembered(parts, norm, weights)
    if not any(is_adapted):
        return Product(base)
    first_rows = accumulate(map(len, bases), initial=0)
    adapted = [
        part.adapted(first_row, norm)
        for part, first_row, has_adapter in zip(parts, first_rows, is_adapted, strict=False)
        if has_adapter
    ]
    return Product(with_adapters(base, adapted), adapted)


def _base(parts: Sequence[_Part], norm: Tensor | None) -> Tensor:
    stacked = torch.cat([part.rows() for part in parts])
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
