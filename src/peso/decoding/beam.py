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

from peso.decoding.trie import Trie, children_of
from peso.lm.backbone import body_of
from peso.lm.token_rows import head_rows

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
    for level in range(trie.num_levels):
        logits_BKC = functional.linear(hidden, head_rows(model, level_token_ids[level])).float()
        log_probabilities = functional.log_softmax(logits_BKC, dim=-1)
        is_last = level == trie.num_levels - 1
        left_out = excluded if is_last else None
        step = _best_children(trie, level, nodes, scores, log_probabilities, beam_width, left_out)
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


@dataclass(frozen=True, eq=False)
class _Step:
    parent: Tensor  # int64 [B, K], which earlier beam each new beam continues
    code: Tensor  # int64 [B, K]
    nodes: Tensor  # int64 [B, K]
    scores: Tensor  # float32 [B, K]; -inf marks a slot without a beam


def _best_children(
    trie: Trie,
    level: int,
    nodes: Tensor,
    scores: Tensor,
    log_probabilities: Tensor,
    beam_width: int,
    left_out: Tensor | None,
) -> _Step:
    num_users, width = nodes.shape
    is_beam = torch.isfinite(scores).flatten()
    beam_numbers = torch.nonzero(is_beam).squeeze(1)
    children = children_of(trie, level, nodes.flatten()[beam_numbers])
    beam = beam_numbers[children.parent]
    child_scores = scores.flatten()[beam] + log_probabilities.flatten(0, 1)[beam, children.code]

    user = beam // width
    if left_out is not None:
        child_scores = child_scores.masked_fill(_is_listed(left_out, user, trie.leaf_items[children.node]), _NO_BEAM)
    counts = torch.bincount(user, minlength=num_users)
    slot = torch.arange(len(user)) - (torch.cumsum(counts, 0) - counts)[user]
    padded = torch.full((num_users, int(counts.max())), _NO_BEAM)
    padded[user, slot] = child_scores
    child_number = torch.zeros(padded.shape, dtype=torch.int64)
    child_number[user, slot] = torch.arange(len(user))

    best, chosen_slot = padded.topk(min(beam_width, padded.shape[1]), dim=1)
    chosen = child_number.gather(1, chosen_slot)
    return _Step(beam[chosen] % width, children.code[chosen], children.node[chosen], best)


def _is_listed(table: Tensor, row: Tensor, item: Tensor) -> Tensor:
    """Whether row `row[e]` of a table [B, E] filled with -1 holds `item[e]`; bool, shaped like `row`."""
    stride = int(torch.maximum(table.amax() if table.numel() else item.amax(), item.amax())) + 2
    keys = torch.arange(len(table))[:, None] * stride + table + 1
    return torch.isin(row * stride + item + 1, keys)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def _ranked_items(trie: Trie, nodes: Tensor, scores: Tensor, num_results: int) -> BeamResult:
    kept = min(num_results, scores.shape[1])
    scores, items = scores[:, :kept], trie.leaf_items[nodes[:, :kept]]
    items = items.masked_fill(torch.isinf(scores), -1)
    missing = num_results - kept
    return BeamResult(
        functional.pad(items, (0, missing), value=-1), functional.pad(scores, (0, missing), value=_NO_BEAM)
    )
