"""Attention of beams that branch off one history: the history is kept once per user, each beam's own codes beside it.

At a level every beam sees its user's history and the codes on its own path, at most M of them. So the history is
never copied to beams, nothing grows with the square of the beams, and no mask over beams is needed: when beams branch,
only the few keys and values of their own codes follow them. All shapes follow from those of the first call.

Shapes: B users, L history tokens, K beams, G key heads, R query heads per key head, m codes on a path, d head width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from peso.decoding.body import Beams
from peso.lm.backbone import body_of

_NAME = "peso_branches"


class _BranchLayer(DynamicLayer):
    """One layer's keys and values: `keys`, `values` [B, G, L, d] of histories, `own_*` [B, K, G, m, d] of beams."""

    own_keys: Tensor | None = None
    own_values: Tensor | None = None
    parent: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keeps the history at the first call, and one more code of each beam at every later one."""
        if not self.is_initialized:
            self.keys, self.values, self.is_initialized = key_states, value_states, True
        else:
            self.own_keys = self._longer(self.own_keys, key_states)
            self.own_values = self._longer(self.own_values, value_states)
        return key_states, value_states

    def _longer(self, own: Tensor | None, states_BGKd: Tensor) -> Tensor:
        new = states_BGKd.transpose(1, 2)[:, :, :, None]
        if own is None:
            return new
        assert self.parent is not None
        user = torch.arange(len(own), device=own.device)[:, None]
        return torch.cat([own[user, self.parent], new], dim=3)


class BranchCache(DynamicCache):
    """Keys and values of histories and of the beams behind them."""

    layers: list[_BranchLayer]  # type: ignore[assignment]

    def __init__(self, num_layers: int, lengths: Tensor, longest: int) -> None:
        """An empty cache.

        Args:
            num_layers: decoder layers of the model.
            lengths: int64 [B], real tokens of each history.
            longest: L, tokens of a padded history.
        """
        super().__init__()
        self.layers = [_BranchLayer() for _ in range(num_layers)]  # type: ignore[no-untyped-call]
        self.is_padding = torch.arange(longest, device=lengths.device) >= lengths[:, None]  # [B, L]

    def branch(self, parent: Tensor) -> None:
        """Says which beam of the level before each new beam continues; int64 [B, K]."""
        for layer in self.layers:
            layer.parent = parent


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    branches: BranchCache,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Softmax over a beam's history and its own codes together, in float32; `key` and `value` are in the cache.

    Scores are bent under a cap where the model does so (Gemma 2).
    """
    layer: _BranchLayer = branches.layers[module.layer_idx]  # type: ignore[index]
    assert layer.keys is not None and layer.values is not None
    assert layer.own_keys is not None and layer.own_values is not None
    B, H, K, d = query.shape
    G = key.shape[1]
    R = H // G
    grouped = (query * scaling).reshape(B, G, R * K, d)
    to_history = grouped @ layer.keys.transpose(-1, -2)
    to_own = grouped.view(B, G, R, K, d).permute(0, 3, 1, 2, 4) @ layer.own_keys.transpose(-1, -2)
    to_own = to_own.permute(0, 2, 3, 1, 4).flatten(2, 3)
    if softcap is not None:
        to_history, to_own = (torch.tanh(scores / softcap) * softcap for scores in (to_history, to_own))
    to_history = to_history.masked_fill(branches.is_padding[:, None, None], float("-inf"))
    to_both = torch.cat([to_history, to_own], dim=-1)
    weights = torch.softmax(to_both, dim=-1, dtype=torch.float32).to(query.dtype)
    longest = to_history.shape[-1]
    from_history = weights[..., :longest] @ layer.values
    own_weights = weights[..., longest:].view(B, G, R, K, -1).permute(0, 3, 1, 2, 4)
    from_own = own_weights @ layer.own_values  # [B, K, G, R, d]
    return from_history.view(B, G, R, K, d).permute(0, 3, 1, 2, 4).add(from_own).flatten(2, 3), None


AttentionInterface.register(_NAME, _attend)


@contextmanager
def attending_to_branches(model: PreTrainedModel) -> Iterator[None]:
    """Passes inside attend to a `BranchCache`, given to the body as `branches` besides `past_key_values`."""
    config = model.config.get_text_config()
    usual = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = usual


class StockBody:
    """The model's own layers, with attention to branches; any causal LM, on any device."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Keeps the model.

        Args:
            model: causal LM in eval mode, plain or with an adapter injected.
        """
        self._model = model

    @torch.inference_mode()
    def read(self, prompts_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Beams]:
        """See `Body.read`."""
        num_users, longest = prompts_BL.shape
        cache = BranchCache(self._model.config.get_text_config().num_hidden_layers, lengths_B, longest)
        hidden = body_of(self._model)(input_ids=prompts_BL, past_key_values=cache, use_cache=True).last_hidden_state
        users = torch.arange(num_users, device=prompts_BL.device)
        return hidden[users, lengths_B - 1], _StockBeams(self._model, cache, lengths_B)


class _StockBeams:
    def __init__(self, model: PreTrainedModel, cache: BranchCache, lengths_B: Tensor) -> None:
        self._model, self._cache, self._lengths_B = model, cache, lengths_B
        self._num_steps = 0

    @torch.inference_mode()
    def extend(self, tokens_BK: Tensor, parent_BK: Tensor) -> Tensor:
        """See `Beams.extend`."""
        self._cache.branch(parent_BK)
        positions = (self._lengths_B + self._num_steps)[:, None].expand_as(tokens_BK)
        self._num_steps += 1
        with attending_to_branches(self._model):
            hidden: Tensor = body_of(self._model)(
                input_ids=tokens_BK,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                branches=self._cache,
            ).last_hidden_state
        return hidden
