"""Attention over short rows as plain batched products, forward and back.

The CPU's fused kernel works in blocks made for long rows; at the thirty tokens of a history most of its time is
overhead. Short rows of float32 go through three products and a softmax instead; everything else keeps the model's own.

Shapes: B lines, H heads, L tokens, d head width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

LONGEST = 96
"""Rows up to this length; the matrix of weights grows with its square."""

_NAME = "peso_short_rows"


class ShortAttention(torch.autograd.Function):
    """softmax(s q k^T + bias) v."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float) -> Tensor:
        """All [B, H, L, d], the bias broadcastable to [B, H, L, L]; returns [B, L, H, d]."""
        shape = query.shape
        q, k, v = (states.reshape(-1, *shape[2:]) for states in (query, key, value))
        weights = torch.bmm(q, k.transpose(1, 2)).mul_(scaling)
        weights = torch.softmax(weights.view(*shape[:3], shape[2]).add_(bias), dim=-1).view(weights.shape)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scaling, ctx.shape = scaling, shape
        return torch.bmm(weights, v).view(shape).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """By the chain rule; the weights are kept, not made again."""
        q, k, v, weights = ctx.saved_tensors
        shape = ctx.shape
        outer = gradients[0].transpose(1, 2).reshape(q.shape)
        dv = torch.bmm(weights.transpose(1, 2), outer)
        inner = torch.bmm(outer, v.transpose(1, 2)).mul_(weights)
        inner = inner.addcmul_(weights, inner.sum(-1, keepdim=True), value=-1).mul_(ctx.scaling)
        dq, dk = torch.bmm(inner, k), torch.bmm(inner.transpose(1, 2), q)
        return dq.view(shape), dk.view(shape), dv.view(shape), None, None


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    heads_per_key = query.shape[1] // key.shape[1]
    if heads_per_key > 1:
        key, value = (states.repeat_interleave(heads_per_key, dim=1) for states in (key, value))
    length = query.shape[2]
    bias = attention_mask
    if bias is None:
        bias = torch.full((length, length), torch.finfo(query.dtype).min, device=query.device).triu_(1)
    attended: Tensor = ShortAttention.apply(  # type: ignore[no-untyped-call]
        query, key, value, bias, options["scaling"]
    )
    return attended, None


AttentionInterface.register(_NAME, _attend)


@contextmanager
def attending_in_products(model: PreTrainedModel, length: int) -> Iterator[None]:
    """Passes inside, without a cache, use the products if that is the same function and quicker.

    Args:
        model: a causal LM; one that attends by other means than scaled dot products is left alone.
        length: L of the passes; they carry no mask for padding, or one of four dimensions.
    """
    config = model.config.get_text_config()
    usual = config._attn_implementation
    is_plain = usual == "sdpa" and getattr(config, "sliding_window", None) is None
    is_single = model.dtype == torch.float32 and model.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    drops = model.training and getattr(config, "attention_dropout", 0.0) > 0
    is_other = config.model_type not in _MODELS or model.is_activation_checkpointing  # which runs layers again outside
    if length > LONGEST or not is_plain or not is_single or drops or is_other:
        yield
        return
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = usual


_MODELS = ("llama", "qwen3", "qwen2", "mistral")
"""Models whose attention is scaled dot products and nothing else."""
