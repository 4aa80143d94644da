"""Beam search over a trie of real items, with one prefix cache per user shared by all its beams.

A user's history is read once. At every later level all beams of a user are fed as one stretch of tokens behind the
history; a mask lets each beam see the history and its own earlier codes only, and position ids say how deep it is.
Nothing is copied or reordered when beams branch: the mask follows the ancestors. Every beam is a real item, no item
comes twice, and scores are exact log-probabilities of the model's per-level softmax.

Shapes: B users, K beams, L history tokens, S cache slots of earlier levels, D width, C codes of a level.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from peso.decoding.expansion import best_children, dead_nodes
from peso.decoding.trie import Trie
from peso.lm.backbone import body_of, head_rows

_NO_BEAM = float("-inf")


@dataclass(frozen=True, eq=False)
class BeamResult:
    """The best items of each user, best first.

    Attributes:
        items: int64 [B, k]; -1 where the catalogue has fewer than k items.
        scores: float32 [B, k], log-probability in nats; -inf where there is no item.
    """

    items: Tensor
    scores: Tensor


@torch.inference_mode()
def beam_search(
    model: PreTrainedModel,
    prompts: Tensor,
    lengths: Tensor,
    trie: Trie,
    level_token_ids: list[Tensor],
    beam_width: int,
    num_results: int,
    excluded: Tensor | None = None,
) -> BeamResult:
    """Decodes the best items for a batch of histories.

    Args:
        model: causal LM in eval mode, plain or with an adapter injected.
        prompts: int64 [B, L], histories padded on the right.
        lengths: int64 [B], real tokens of each prompt.
        trie: the items that may be named.
        level_token_ids: per level, int64 [C], the token of each code.
        beam_width: beams kept per user K, at least `num_results`.
        num_results: list length k.
        excluded: int64 [B, E], items that each user's list must not name, filled with -1.
    """
    num_users, longest = prompts.shape
    cache = DynamicCache(config=model.config)
    hidden_BLD = body_of(model)(input_ids=prompts, past_key_values=cache, use_cache=True).last_hidden_state
    hidden = hidden_BLD[torch.arange(num_users), lengths - 1][:, None]  # [B, 1, D]: the one root "beam"

    can_see_history = torch.arange(longest) < lengths[:, None]  # [B, L]
    can_see_beams = torch.zeros(num_users, 1, 0, dtype=torch.bool)  # [B, K, S]
    nodes = torch.zeros(num_users, 1, dtype=torch.int64)
    scores = torch.zeros(num_users, 1)
    dead = None if excluded is None else dead_nodes(trie, excluded)
    for level in range(trie.num_levels):
        logits_BKC = functional.linear(hidden, head_rows(model, level_token_ids[level])).float()
        log_probabilities = functional.log_softmax(logits_BKC, dim=-1)
        is_last = level == trie.num_levels - 1
        step = best_children(trie, level, nodes, scores, log_probabilities, beam_width, dead)
        nodes, scores = step.nodes, step.scores
        if is_last:
            break
        width = nodes.shape[1]
        inherited = can_see_beams.gather(1, step.parent[..., None].expand(-1, -1, can_see_beams.shape[2]))
        can_see_beams = torch.cat([inherited, torch.eye(width, dtype=torch.bool).expand(num_users, -1, -1)], dim=2)
        mask = torch.cat([can_see_history[:, None].expand(-1, width, -1), can_see_beams], dim=2)
        hidden = body_of(model)(
            input_ids=level_token_ids[level][step.code],
            position_ids=(lengths + level)[:, None].expand(-1, width),
            attention_mask=_additive(mask, hidden.dtype)[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    return _ranked_items(trie, nodes, scores, num_results)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def _ranked_items(trie: Trie, nodes: Tensor, scores: Tensor, num_results: int) -> BeamResult:
    kept = min(num_results, scores.shape[1])
    scores, items = scores[:, :kept], trie.leaf_items[nodes[:, :kept]].long()
    items = items.masked_fill(torch.isinf(scores), -1)
    missing = num_results - kept
    return BeamResult(
        functional.pad(items, (0, missing), value=-1), functional.pad(scores, (0, missing), value=_NO_BEAM)
    )
