"""A Llama-like decoder stack written out for beam search on a CPU: the same function in fewer passes over memory.

The libraries' layers are made for any model at any time. Here the adapter is merged once, each norm's weight and the
scale of attention go into the matrix behind them, query, key and value (and gate and up) are one product, rotary
positions are one complex multiplication, residual sums happen inside the products. The first layer, where equal tokens
are still equal rows, projects each distinct one once; and of the last, whose other outputs nobody reads, all tokens of
a history get keys and values, and its last token the rest.

Whether a model is of this kind is found out by trying: unless the result equals the model's own on a probe, the model
keeps its own code (`StockBody`).

Shapes: B users, K beams, L history tokens, D width, F inner width, G key heads, R query heads per key head, d head
width, m codes on a beam's path. Rotated pairs of a head are neighbours here, not halves: d is [d/2, 2].
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from peso.decoding.body import Beams, Body
from peso.decoding.branches import StockBody
from peso.lm.backbone import body_of
from peso.lm.decoder_layer import turned, unit_norm
from peso.lm.folding import UnknownLayerError, folded_products, norm_epsilons
from peso.lm.sharding import is_sharded
from peso.lm.short_attention import LONGEST

_TOLERANCE = 1e-4
_PROBE_LENGTHS, _PROBE_BEAMS = (5, 3), 2


def quick_body(model: PreTrainedModel) -> Body:
    """The quickest body that computes what the model computes.

    Args:
        model: causal LM in eval mode, plain or with an adapter injected; after a change of its weights ask again.
    """
    stock = StockBody(model)
    if model.device.type != "cpu" or model.dtype != torch.float32 or is_sharded(model):
        return stock
    try:
        quick = QuickBody(model)
    except UnknownLayerError:
        return stock
    return quick if _are_equal(quick, stock, model) else stock


@dataclass(frozen=True, eq=False)
class _Layer:
    """Weights of one layer, [out, in], with everything in front of them folded in."""

    query_key_value: Tensor  # [(GR + 2G) d, D]
    out: Tensor  # [D, G R d]
    gate_up: Tensor  # [2F, D]
    down: Tensor  # [D, F]
    attention_epsilon: float
    feed_forward_epsilon: float


class QuickBody:
    """Layers of RMS norm, rotary attention and a gated feed-forward, in float32."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel) -> None:
        """Merges and folds the weights; they are copies.

        Args:
            model: causal LM in eval mode.

        Raises:
            UnknownLayerError: a layer computes something else.
        """
        body: Any = body_of(model)
        config = model.config.get_text_config()
        if not hasattr(body, "layers"):
            raise UnknownLayerError("the body has no layers of this kind")
        if getattr(config, "sliding_window", None) is not None:  # which a short probe would not notice
            raise UnknownLayerError("attention sees a window only")
        self._layers = [_layer(layer) for layer in body.layers]
        self._num_key_heads = config.num_key_value_heads
        self._num_queries = config.num_attention_heads
        self._queries_per_key = config.num_attention_heads // config.num_key_value_heads
        self._head_width = body.layers[0].self_attn.head_dim
        self._embed, self._rotary, self._last_norm = body.embed_tokens, body.rotary_emb, body.norm

    @torch.inference_mode()
    def read(self, prompts_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Beams]:
        """See `Body.read`."""
        num_users, longest = prompts_BL.shape
        states, projected = self._first(prompts_BL)
        turns = self._turns(states, torch.arange(longest)[None])  # [1, L, d/2]
        keys, values = [], []
        for number, layer in enumerate(self._layers):
            is_last = number == len(self._layers) - 1
            if number:
                matrix = layer.query_key_value[self._num_queries * self._head_width :] if is_last else None
                projected = self._projected(layer, states, matrix)
            query, key, value = self._heads(projected, (num_users, longest), turns[:, None, None])
            key, value = key.squeeze(2), value.squeeze(2)  # [B, G, L, d]
            keys.append(key)
            values.append(value)
            if is_last:
                break
            self._finish(layer, states, _causal(query, key, value))
        states = states[torch.arange(num_users) * longest + lengths_B - 1]
        self._finish_last(states, turns[0, lengths_B - 1], keys[-1], values[-1], lengths_B)
        return self._normed(states), _QuickBeams(self, keys, values, lengths_B)

    def _finish_last(
        self, states_BD: Tensor, turns: Tensor, key_BGLd: Tensor, value_BGLd: Tensor, lengths_B: Tensor
    ) -> None:
        """The last layer for one token of each user, added to its states in place; rotations are [B, d/2]."""
        layer = self._layers[-1]
        asked = self._projected(layer, states_BD, layer.query_key_value[: self._num_queries * self._head_width])
        query = turned(_pairs(asked.view(len(asked), self._num_queries, -1)), turns[:, None])
        query = query.unflatten(1, (self._num_key_heads, self._queries_per_key))  # [B, G, R, d]
        is_padding = torch.arange(key_BGLd.shape[2]) >= lengths_B[:, None]
        attended = _to_history(query, key_BGLd, is_padding) @ value_BGLd
        self._finish(layer, states_BD, attended.flatten(1))

    def _turns(self, like: Tensor, positions: Tensor) -> Tensor:
        """Rotations of positions, complex [*positions, d/2]."""
        cosine, sine = self._rotary(like, positions)
        half = self._head_width // 2
        return torch.complex(cosine[..., :half].float(), sine[..., :half].float())

    def _first(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States of tokens before the first layer, [T, D], to be changed in place, and what it projects them to."""
        distinct, which = tokens.unique(return_inverse=True)
        states = self._embed(distinct)
        projected = self._projected(self._layers[0], states)
        return functional.embedding(which.flatten(), states), functional.embedding(which.flatten(), projected)

    def _projected(self, layer: _Layer, states_TD: Tensor, matrix: Tensor | None = None) -> Tensor:
        """Query, key and value of tokens in one, [T, (GR + 2G) d], or what some of the matrix's rows give."""
        normed, _ = unit_norm(states_TD, layer.attention_epsilon)
        return functional.linear(normed, layer.query_key_value if matrix is None else matrix)

    def _heads(self, projected: Tensor, shape: tuple[int, int], turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B, G, R, N, d], key and value [B, G, 1, N, d] of N tokens of each user, turned and contiguous.

        Where only keys and values were projected, R is 0.
        """
        num_users, num_tokens = shape
        parts = projected.view(num_users, num_tokens, -1, self._head_width)
        num_keys = self._num_key_heads
        num_queries = parts.shape[2] - 2 * num_keys
        per_key = num_queries // num_keys
        query, key, value = parts.split([num_queries, num_keys, num_keys], dim=2)
        return (
            turned(_pairs(query.unflatten(2, (num_keys, per_key)).permute(0, 2, 3, 1, 4)), turns),
            turned(_pairs(key.unflatten(2, (num_keys, 1)).permute(0, 2, 3, 1, 4)), turns),
            value.unflatten(2, (num_keys, 1)).permute(0, 2, 3, 1, 4).contiguous(),
        )

    def _finish(self, layer: _Layer, states_TD: Tensor, attended_TD: Tensor) -> None:
        """What follows attention in a layer, added to the states in place."""
        states_TD.addmm_(attended_TD, layer.out.T)
        normed, _ = unit_norm(states_TD, layer.feed_forward_epsilon)
        gate, up = functional.linear(normed, layer.gate_up).chunk(2, dim=-1)
        states_TD.addmm_(functional.silu(gate).mul_(up), layer.down.T)

    def _normed(self, states: Tensor) -> Tensor:
        normed: Tensor = self._last_norm(states)
        return normed


class _QuickBeams:
    """Beams that share their users' keys and values; see `peso.decoding.branches` for the idea."""

    def __init__(self, body: QuickBody, keys: list[Tensor], values: list[Tensor], lengths_B: Tensor) -> None:
        self._body, self._keys, self._values, self._lengths_B = body, keys, values, lengths_B
        self._is_padding = torch.arange(keys[0].shape[2]) >= lengths_B[:, None]
        self._has_padding = bool(self._is_padding.any())
        # Per layer and code on the path, [BK, 2 G d]: each beam's key and value.
        self._paths: list[list[Tensor]] = [[] for _ in keys]
        self._num_beams = 1
        self._num_steps = 0

    @torch.inference_mode()
    def extend(self, tokens_BK: Tensor, parent_BK: Tensor) -> Tensor:
        """See `Beams.extend`."""
        body = self._body
        num_users, num_beams = tokens_BK.shape
        states, projected = body._first(tokens_BK)
        turns = body._turns(states, (self._lengths_B + self._num_steps)[:, None])[:, None, None]  # [B, 1, 1, 1, d/2]
        rows = (parent_BK + torch.arange(num_users)[:, None] * self._num_beams).flatten()
        self._num_beams = num_beams
        for number, layer in enumerate(body._layers):
            if number:
                projected = body._projected(layer, states)
            query, key, value = body._heads(projected, (num_users, num_beams), turns)
            path = self._paths[number]
            path[:] = [
                own.index_select(0, rows) for own in path
            ]  # whole rows are copied, which is quicker than gathering
            path.append(torch.cat([_of_beams(key), _of_beams(value)], dim=1))
            attended = self._attend(number, query)
            body._finish(layer, states, _of_beams(attended).view(num_users * num_beams, -1))
        self._num_steps += 1
        return body._normed(states).view(num_users, num_beams, -1)

    def _attend(self, number: int, query: Tensor) -> Tensor:
        """Softmax over a beam's history and its own codes together; [B, G, R, K, d]."""
        key, value = self._keys[number], self._values[number]
        num_users, num_keys, _, num_beams, width = query.shape
        own = [
            one.view(num_users, num_beams, 2, num_keys, 1, width).permute(2, 0, 3, 4, 1, 5)
            for one in self._paths[number]
        ]  # per code, keys and values [2, B, G, 1, K, d]
        to_history = query.flatten(2, 3) @ key.transpose(-1, -2)  # [B, G, RK, L]
        if self._has_padding:
            to_history.masked_fill_(self._is_padding[:, None, None], float("-inf"))
        to_own = torch.stack([(query * own_key).sum(-1) for own_key, _ in own], dim=-1)  # [B, G, R, K, m]
        weights = torch.softmax(torch.cat([to_history, to_own.flatten(2, 3)], dim=-1), dim=-1)
        longest = key.shape[2]
        attended = (weights[..., :longest] @ value).view(query.shape)
        own_weights = weights[..., longest:].unflatten(2, query.shape[2:4])
        for place, (_, own_value) in enumerate(own):
            attended.addcmul_(own_weights[..., place, None], own_value)
        return attended


def _of_beams(heads: Tensor) -> Tensor:
    """From [B, G, R, K, d] to a row per beam, [BK, G R d]."""
    return heads.permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1)


def _layer(layer: Any) -> _Layer:
    query_key_value, out, gate_up, down = (product.weight.clone() for product in folded_products(layer))
    return _Layer(query_key_value, out, gate_up, down, *norm_epsilons(layer))


def _pairs(heads: Tensor) -> Tensor:
    """Neighbours as complex numbers, a view [..., d/2]."""
    return torch.view_as_complex(heads.unflatten(-1, (-1, 2)))


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of histories to themselves, [BL, G R d]; padding on the right is seen by padding only."""
    num_users, _, per_key, longest, width = query.shape
    if longest > LONGEST:
        attended = functional.scaled_dot_product_attention(
            query.flatten(1, 2), key, value, is_causal=True, scale=1.0, enable_gqa=per_key > 1
        )
        return attended.transpose(1, 2).reshape(num_users * longest, -1)
    bias = torch.full((longest, longest), float("-inf")).triu_(1).repeat(per_key, 1)
    scores = torch.baddbmm(bias, query.view(-1, per_key * longest, width), key.view(-1, longest, width).transpose(1, 2))
    attended = torch.bmm(torch.softmax(scores, dim=-1), value.view(-1, longest, width)).view(query.shape)
    return attended.permute(0, 3, 1, 2, 4).reshape(num_users * longest, -1)


def _to_history(query_BGRd: Tensor, key_BGLd: Tensor, is_padding_BL: Tensor) -> Tensor:
    """Attention weights of one token per user, [B, G, R, L]."""
    scores = query_BGRd @ key_BGLd.transpose(-1, -2)
    return torch.softmax(scores.masked_fill_(is_padding_BL[:, None, None], float("-inf")), dim=-1)


@torch.inference_mode()
def _are_equal(quick: Body, stock: Body, model: PreTrainedModel) -> bool:
    """Compares both on random tokens: a history, a padded one, and two steps of beams."""
    generator = torch.Generator().manual_seed(0)
    vocabulary: int = model.config.get_text_config().vocab_size
    lengths = torch.tensor(_PROBE_LENGTHS)
    prompts = torch.randint(vocabulary, (len(lengths), max(_PROBE_LENGTHS)), generator=generator)
    tokens = torch.randint(vocabulary, (2, len(lengths), _PROBE_BEAMS), generator=generator)
    parent = torch.arange(_PROBE_BEAMS).flip(0).expand(len(lengths), -1)
    results = []
    for body in (quick, stock):
        at_last, beams = body.read(prompts, lengths)
        results.append([at_last, beams.extend(tokens[0], parent), beams.extend(tokens[1], parent)])
    return all(
        torch.allclose(ours, theirs, rtol=_TOLERANCE, atol=_TOLERANCE * float(theirs.abs().max()))
        for ours, theirs in zip(*results, strict=True)
    )
