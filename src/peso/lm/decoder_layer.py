"""One Llama decoder layer, forward and back, as few passes over memory as it takes on a CPU.

The layer is written in four matrices with everything that can be put into them put into them: each norm's weight, the
scale of attention, and the adapter. What is left between two products is a handful of elementwise passes, each of
which is done once and, where nothing needs the old values, in place. The way back is written out too.

Two things are done for fewer rows than there are tokens. Before attention mixes them, equal tokens are equal rows: the
first layer norms and projects each distinct one once (`spread`). And what nobody reads is not computed: behind the last
layer's attention only the rows whose states are asked for go on (`kept`).

Shapes: B lines, L tokens of a line, T = B L, U distinct tokens, N rows that are kept, D width, F inner width, G key
heads, R query heads per key head, d head width. Rotated pairs of a head are neighbours: d is [d/2, 2].
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from peso.lm.product import Product, gradients_of_product

NUM_PRODUCTS = 4

Gradients = Callable[[Tensor, Tensor], tuple[Tensor | None, list[Tensor | None]]]
"""From a product's inputs and the gradient of its result to the gradients of W, and of every A and B."""


@dataclass(frozen=True, eq=False)
class LayerShape:
    """What the matrices do not say.

    Attributes:
        num_lines: B.
        num_tokens: L.
        num_key_heads: G.
        queries_per_key: R.
        head_width: d.
        attention_epsilon: of the norm in front of attention.
        feed_forward_epsilon: of the norm in front of the feed-forward part.
        spread: which row of the states each token is, int64 [T]; None where every token has its own, in order.
        kept: places of the tokens whose states are wanted, int64 [N]; None for all of them.
    """

    num_lines: int
    num_tokens: int
    num_key_heads: int
    queries_per_key: int
    head_width: int
    attention_epsilon: float
    feed_forward_epsilon: float
    spread: Tensor | None = None
    kept: Tensor | None = None


class DecoderLayer(torch.autograd.Function):
    """States after a layer from the states before it; see `decoder_layer`."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        turns: Tensor,
        bias: Tensor,
        shape: LayerShape,
        products: Sequence[Product],
        *matrices: Tensor,
    ) -> Tensor:
        """The matrices are the four products' W, and then every A and B in them, which only the way back asks for."""
        weights_of_products = matrices[:NUM_PRODUCTS]
        qkv_weight, out_weight, gate_up_weight, down_weight = weights_of_products
        normed, scale = unit_norm(states, shape.attention_epsilon)
        query, key, value = _heads(_rows(normed @ qkv_weight.T, shape.spread), turns, shape)
        weights = _weights(query, key, bias, shape)
        attended = _rows(_of_tokens(torch.bmm(weights, value), shape), shape.kept)
        between = torch.addmm(_rows(_rows(states, shape.spread), shape.kept), attended, out_weight.T)
        normed_between, scale_between = unit_norm(between, shape.feed_forward_epsilon)
        gate_up = normed_between @ gate_up_weight.T
        gate, up = gate_up.chunk(2, dim=1)
        opened = functional.silu(gate)
        inner = opened * up
        ctx.shape, ctx.products = shape, products
        ctx.save_for_backward(
            turns, normed, scale, query, key, value, weights, attended,
            normed_between, scale_between, gate_up, opened, inner, *weights_of_products,
        )  # fmt: skip
        return between.addmm_(inner, down_weight.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """By the chain rule, from the last product to the first; gradients of W only where W trains."""
        (
            turns, normed, scale, query, key, value, weights, attended,
            normed_between, scale_between, gate_up, opened, inner,
            qkv_weight, out_weight, gate_up_weight, down_weight,
        ) = ctx.saved_tensors  # fmt: skip
        shape: LayerShape = ctx.shape
        qkv, out, gated, down = _with_needs(ctx.products, ctx.needs_input_grad[5:])
        outer = gradients[0]

        d_inner = outer @ down_weight
        of_down = down(inner, outer)
        gate, up = gate_up.chunk(2, dim=1)
        d_gate_up = torch.empty_like(gate_up)
        d_gate, d_up = d_gate_up.chunk(2, dim=1)
        torch.mul(d_inner, opened, out=d_up)
        torch.ops.aten.silu_backward.grad_input(d_inner.mul_(up), gate, grad_input=d_gate)
        of_gate_up = gated(normed_between, d_gate_up)
        d_between = _add_norm_back(outer, d_gate_up @ gate_up_weight, normed_between, scale_between)

        num_tokens = shape.num_lines * shape.num_tokens
        d_attended = _of_heads(_rows_back(d_between @ out_weight, shape.kept, num_tokens), shape)
        of_out = out(attended, d_between)
        d_qkv = _attention_back(d_attended, query, key, value, weights, turns, shape)
        d_qkv = _rows_back(d_qkv, shape.spread, len(normed))
        of_qkv = qkv(normed, d_qkv)
        residual = _rows_back(_rows_back(d_between, shape.kept, num_tokens), shape.spread, len(normed))
        d_states = _add_norm_back(residual, d_qkv @ qkv_weight, normed, scale)
        found = (of_qkv, of_out, of_gate_up, of_down)
        of_adapters = chain.from_iterable(adapters for _, adapters in found)
        return d_states, None, None, None, None, *(weight for weight, _ in found), *of_adapters


def decoder_layer(
    states_TD: Tensor, turns: Tensor, bias: Tensor, shape: LayerShape, products: Sequence[Product]
) -> Tensor:
    """States after a layer.

    Args:
        states_TD: float32 [B L, D]; [U, D] where `shape.spread` says which token is which.
        turns: complex64 [1 or B, 1, L, d/2], rotations of the positions.
        bias: float32, added to attention's scores: [L, L] for all lines alike, or [B, 1, L, L].
        shape: the rest.
        products: query, key and value [(G R + 2 G) d, D], then out [D, G R d], gate and up [2 F, D], and down [D, F].

    Returns:
        float32 [B L, D]; [N, D] where only some are kept.
    """
    weights = [product.weight for product in products]
    adapters = chain.from_iterable(product.parameters() for product in products)
    after: Tensor = DecoderLayer.apply(states_TD, turns, bias, shape, products, *weights, *adapters)  # type: ignore[no-untyped-call]
    return after


def _with_needs(products: Sequence[Product], needed: Sequence[bool]) -> Iterator[Gradients]:
    """Each product's gradients as a function of what went in and of the gradient of what came out."""
    of_adapters = iter(needed[NUM_PRODUCTS:])
    for product, weight_needs in zip(products, needed[:NUM_PRODUCTS], strict=True):
        parts_need = [(next(of_adapters), next(of_adapters)) for _ in product.adapted]
        yield partial(gradients_of_product, product, weight_needs=weight_needs, parts_need=parts_need)


def _rows(states: Tensor, places: Tensor | None) -> Tensor:
    """Rows at some places, or all."""
    return states if places is None else functional.embedding(places, states)


def _rows_back(gradient: Tensor, places: Tensor | None, num_rows: int) -> Tensor:
    """The gradient of the rows that some were taken from: the sum of those that stood at each place."""
    if places is None:
        return gradient
    return torch.ops.aten.embedding_dense_backward(gradient, places, num_rows, -1, False)


def unit_norm(states_TD: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """An RMS norm without its weight, and each token's scale."""
    scale = torch.linalg.vector_norm(states_TD, dim=1, keepdim=True).square_().div_(states_TD.shape[1])
    scale = scale.add_(epsilon).rsqrt_()
    return states_TD * scale, scale


def _add_norm_back(residual: Tensor, d_normed: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    """The residual's gradient plus the norm's: r (dn - n mean(dn n)); `d_normed` is used up."""
    along = torch.linalg.vecdot(d_normed, normed).unsqueeze(1).div_(normed.shape[1])
    return torch.addcmul(residual, d_normed.addcmul_(normed, along, value=-1), scale)


def _heads(qkv: Tensor, turns: Tensor, shape: LayerShape) -> tuple[Tensor, Tensor, Tensor]:
    """Query [B G, R L, d], key and value [B G, L, d]; contiguous, the first two turned."""
    num_keys, per_key = shape.num_key_heads, shape.queries_per_key
    num_queries = num_keys * per_key
    parts = qkv.view(shape.num_lines, shape.num_tokens, -1, shape.head_width).transpose(1, 2)
    pairs = torch.view_as_complex(parts[:, : num_queries + num_keys].unflatten(-1, (-1, 2)))
    query = turned(pairs[:, :num_queries], turns).view(-1, per_key * shape.num_tokens, shape.head_width)
    key = turned(pairs[:, num_queries:], turns).view(-1, shape.num_tokens, shape.head_width)
    value = parts[:, num_queries + num_keys :].reshape(-1, shape.num_tokens, shape.head_width)
    return query, key, value


def turned(pairs: Tensor, turns: Tensor) -> Tensor:
    """Complex pairs [..., d/2] times their rotations, written to contiguous memory as float32 [..., d]."""
    result = torch.empty(pairs.shape, dtype=pairs.dtype)
    return torch.view_as_real(torch.mul(pairs, turns, out=result)).flatten(-2)


def _weights(query: Tensor, key: Tensor, bias: Tensor, shape: LayerShape) -> Tensor:
    """What each token attends to, [B G, R L, L]."""
    length = shape.num_tokens
    if bias.dim() == 2:
        return torch.softmax(torch.baddbmm(bias.repeat(shape.queries_per_key, 1), query, key.transpose(1, 2)), dim=-1)
    scores = torch.bmm(query, key.transpose(1, 2)).view(shape.num_lines, -1, length, length)
    return torch.softmax(scores.add_(bias), dim=-1).view(-1, shape.queries_per_key * length, length)


def _of_tokens(heads: Tensor, shape: LayerShape) -> Tensor:
    """From [B G, R L, d] to [T, G R d]."""
    lines = heads.view(shape.num_lines, -1, shape.num_tokens, shape.head_width)
    return lines.transpose(1, 2).reshape(shape.num_lines * shape.num_tokens, -1)


def _of_heads(states: Tensor, shape: LayerShape) -> Tensor:
    """From [T, G R d] to [B G, R L, d], contiguous."""
    lines = states.view(shape.num_lines, shape.num_tokens, -1, shape.head_width).transpose(1, 2)
    return lines.reshape(-1, shape.queries_per_key * shape.num_tokens, shape.head_width)


def _attention_back(
    d_attended: Tensor, query: Tensor, key: Tensor, value: Tensor, weights: Tensor, turns: Tensor, shape: LayerShape
) -> Tensor:
    """The gradient of query, key and value before they were turned, [T, (G R + 2 G) d]."""
    num_keys, num_queries = shape.num_key_heads, shape.num_key_heads * shape.queries_per_key
    d_value = torch.bmm(weights.transpose(1, 2), d_attended)
    inner = torch.bmm(d_attended, value.transpose(1, 2)).mul_(weights)
    inner.addcmul_(weights, inner.sum(-1, keepdim=True), value=-1)
    d_query, d_key = torch.bmm(inner, key), torch.bmm(inner.transpose(1, 2), query)
    d_qkv = d_query.new_empty(shape.num_lines, shape.num_tokens, num_queries + 2 * num_keys, shape.head_width)
    pairs = torch.view_as_complex(d_qkv[:, :, : num_queries + num_keys].unflatten(-1, (-1, 2))).transpose(1, 2)
    back = turns.conj().resolve_conj()
    for gradient, place in ((d_query, slice(num_queries)), (d_key, slice(num_queries, None))):
        rotated = torch.view_as_complex(gradient.view(shape.num_lines, -1, shape.num_tokens, shape.head_width // 2, 2))
        torch.mul(rotated, back, out=pairs[:, place])
    lines = d_value.view(shape.num_lines, num_keys, shape.num_tokens, shape.head_width)
    d_qkv[:, :, num_queries + num_keys :].copy_(lines.transpose(1, 2))
    return d_qkv.flatten(0, 1).flatten(1)
