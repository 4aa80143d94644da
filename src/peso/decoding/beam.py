"""Beam search over a trie of real items, in shapes that depend on the batch and the trie only.

A user's history is read once. At every later level all beams of a user are fed as one stretch of tokens behind the
history; position ids say how deep they are, and each sees the history and its own codes (`peso.decoding.branches`).
Every beam is a real item, no item comes twice, and scores are exact log-probabilities of the model.

Shapes: B users, K beams, L history tokens, D width, C codes of a level.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from peso.decoding.body import Body
from peso.decoding.code_scores import CodeScores
from peso.decoding.expansion import best_children, dead_nodes
from peso.decoding.memory import Memory, remembered_nodes
from peso.decoding.trie import Trie

_NO_BEAM = float("-inf")


@dataclass(frozen=True, eq=False)
class BeamResult:
    """The best items of each user, best first.

    A prefix's score is a log-probability given the prefix before it, so scores only fall along a path whatever the
    normaliser, and what a search leaves out at some level bounds every item behind it.

    Attributes:
        items: int64 [B, k]; -1 where the catalogue has fewer than k items.
        scores: float32 [B, k], log-probability in nats; -inf where there is no item.
        bound: float32 [B]; no other item that may be named has a score above it, up to rounding. So the listed
            items with a higher score are the true best.
    """

    items: Tensor
    scores: Tensor
    bound: Tensor

    @property
    def is_certain(self) -> Tensor:
        """Bool [B]: whether no item that is left out has a score above one of the list's; it may have the same."""
        return self.scores[:, -1] >= self.bound


@torch.inference_mode()
def beam_search(
    body: Body,
    prompts: Tensor,
    lengths: Tensor,
    trie: Trie,
    code_scores: CodeScores,
    beam_width: int,
    num_results: int,
    excluded: Tensor | None = None,
    memory: Memory | None = None,
) -> BeamResult:
    """Decodes the best items for a batch of histories; all tensors on the model's device.

    Args:
        body: reads histories and beams; see `peso.decoding.quick_body`.
        prompts: int64 [B, L], histories padded on the right.
        lengths: int64 [B], real tokens of each prompt.
        trie: the items that may be named.
        code_scores: the model's head and the normaliser.
        beam_width: beams kept per user K, at least `num_results`.
        num_results: list length k.
        excluded: int64 [B, E], items that each user's list must not name, filled with -1; they take up no beams.
        memory: what a memory knows of each user; scores are then those of model and memory together.
    """
    num_users = len(prompts)
    at_last_BD, beams = body.read(prompts, lengths)
    hidden = at_last_BD[:, None]  # [B, 1, D]: the one root "beam"

    dead = None if excluded is None else dead_nodes(trie, excluded)
    remembered = None if memory is None else remembered_nodes(trie, memory)
    renormalise = code_scores.normaliser == "trie"
    nodes = torch.zeros(num_users, 1, dtype=torch.int64, device=prompts.device)
    scores = torch.zeros(num_users, 1, device=prompts.device)
    by_model = None if memory is None else torch.zeros_like(scores)
    bound = torch.full((num_users,), _NO_BEAM, device=prompts.device)
    for level in range(trie.num_levels):
        log_probabilities = code_scores.log_probabilities(hidden, level)
        step = best_children(
            trie, level, nodes, scores, log_probabilities, beam_width, dead, renormalise, remembered, by_model
        )
        nodes, scores, by_model = step.nodes, step.scores, step.by_model
        bound = torch.maximum(bound, step.best_left_out)
        if level == trie.num_levels - 1:
            break
        hidden = beams.extend(code_scores.level_token_ids[level][step.code], step.parent)
    return _ranked_items(trie, nodes, scores, bound, num_results)


def _ranked_items(trie: Trie, nodes: Tensor, scores: Tensor, bound: Tensor, num_results: int) -> BeamResult:
    if scores.shape[1] > num_results:
        bound = torch.maximum(bound, scores[:, num_results])
    kept = min(num_results, scores.shape[1])
    scores = scores[:, :kept]
    items = trie.leaf_items[nodes[:, :kept]].long().masked_fill(torch.isinf(scores), -1)
    missing = num_results - kept
    return BeamResult(
        functional.pad(items, (0, missing), value=-1), functional.pad(scores, (0, missing), value=_NO_BEAM), bound
    )
