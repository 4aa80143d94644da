"""A LoRA layer as one matrix product: PEFT's modules and parameters, a cheaper way to compute the same function.

PEFT adds the low-rank path to every token: two more products, a scaling and a sum, and as much again backwards. Here
the weight W_0 + s B A is formed once per pass and every token meets one matrix; backwards, the gradients of A and B
come from products of rank r, and nothing is computed for the frozen W_0. Saving, loading and naming stay PEFT's.

Shapes: T tokens, I and O input and output features, R rank.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from peso.lm.low_rank import adapted_layers
from peso.lm.past_adapters import factors, past_of
from peso.lm.product import thin_gradient_of_a, thin_gradient_of_b

_SETTLED = "_settled_weight"


class _MergedProduct(torch.autograd.Function):
    """y = x (W_0 + B A)^T + bias, with gradients for x, A and B only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias: Tensor | None, a_RI: Tensor, b_OR: Tensor) -> Tensor:
        """Keeps the merged weight for the way back."""
        merged_OI = torch.addmm(weight_OI, b_OR, a_RI)
        ctx.save_for_backward(x, merged_OI, a_RI, b_OR)
        return functional.linear(x, merged_OI, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Dx = dy (W_0 + B A), dB = dy^T (x A^T), dA = (dy B)^T x."""
        x, merged_OI, a_RI, b_OR = ctx.saved_tensors
        dy = gradients[0]
        dx = dy @ merged_OI if ctx.needs_input_grad[0] else None
        x_TI, dy_TO = x.flatten(0, -2), dy.flatten(0, -2)
        return dx, None, None, thin_gradient_of_a(x_TI, dy_TO, b_OR), thin_gradient_of_b(x_TI, dy_TO, a_RI)


def merge_products(model: PeftModel) -> None:
    """Lets every LoRA layer of a model compute with a merged weight wherever that is the same function.

    A layer goes PEFT's own way while its dropout acts, when several adapters are active, where its matrix is stored
    transposed (GPT-2), and where it is no plain float32 one (a small B A would vanish in the rounding of a narrower or
    quantised W_0).

    Args:
        model: its LoRA layers are changed in place; parameters, names and state stay as they are.
    """
    for layer in adapted_layers(model).values():
        layer.__dict__["forward"] = MethodType(_forward if isinstance(layer, LoraLinear) else _by_parts, layer)


def compute_in_parts(model: nn.Module) -> None:
    """Lets every LoRA layer keep its matrix and its adapter apart, for weights of which nothing may stay behind.

    Args:
        model: one whose LoRA layers went through `merge_products`; changed in place.
    """
    for layer in adapted_layers(model).values():
        layer.__dict__["forward"] = MethodType(_by_parts, layer)


@contextmanager
def settled_weights(model: nn.Module) -> Iterator[None]:
    """Inside, passes without gradients use weights merged once, at the start; the adapter must not change meanwhile.

    Args:
        model: one whose LoRA layers went through `merge_products`; any other is left alone.
    """
    settled = [module for module in model.modules() if isinstance(module, LoraLinear) and can_merge(module)]
    with torch.inference_mode():
        for module in settled:
            module.__dict__[_SETTLED] = _merged(module)
    try:
        yield
    finally:
        for module in settled:
            del module.__dict__[_SETTLED]


def _merged(layer: LoraLinear) -> Tensor:
    base = layer.get_base_layer()
    assert isinstance(base, nn.Linear)
    a, b = factors(layer)
    return torch.addmm(base.weight, b, a)


def _forward(self: LoraLinear, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base = self.get_base_layer()
    settled: Tensor | None = self.__dict__.get(_SETTLED)
    if settled is not None and not torch.is_grad_enabled():
        assert isinstance(base, nn.Linear)
        return functional.linear(x, settled, base.bias)
    if kwargs or x.dtype != torch.float32 or torch.is_autocast_enabled(x.device.type) or not can_merge(self):
        return _by_parts(self, x, *args, **kwargs)
    assert isinstance(base, nn.Linear)
    product: Tensor = _MergedProduct.apply(x, base.weight, base.bias, *factors(self))  # type: ignore[no-untyped-call]
    return product


def _by_parts(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """PEFT's own way, and past adapters as one more path beside it."""
    if past_of(layer) is None:
        usual: Callable[..., Tensor] = type(layer).forward
        return usual(layer, x, *args, **kwargs)
    base, dropout = layer.get_base_layer(), layer.lora_dropout[layer.active_adapters[0]]
    a, b = factors(layer)
    return base(x) + functional.linear(functional.linear(dropout(x), a.to(x.dtype)), b.to(x.dtype))


def can_merge(layer: LoraLinear) -> bool:
    """Whether a layer's adapter acts as one B A on one float32 matrix that does not train itself."""
    active = layer.active_adapters
    if len(active) != 1 or layer.merged or layer.disable_adapters or active[0] not in layer.lora_A:
        return False
    (name,) = active
    base = layer.base_layer  # one level: anything but a plain linear layer there is refused
    is_plain = type(base) is nn.Linear and name not in layer.lora_variant and not layer.lora_bias[name]
    if not is_plain or (layer.training and type(layer.lora_dropout[name]) is not nn.Identity):
        return False
    weight = base.weight
    is_shard = isinstance(weight, DTensor)  # this process has a part of it only
    return not is_shard and weight.dtype == torch.float32 and not weight.requires_grad
