"""One step down the trie for all beams of all users at once, in shapes that depend on the trie only.

Shapes: B users, K beams, C codes of a level, E left-out items per user, F most children of a node of the level.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from peso.decoding.trie import Trie

_NO_BEAM = float("-inf")


@dataclass(frozen=True, eq=False)
class Step:
    """The best children of each user's beams.

    Attributes:
        parent: int64 [B, K'], which earlier beam each new one continues.
        code: int64 [B, K'], the code that leads to it.
        nodes: int64 [B, K'], its number in its level.
        scores: float32 [B, K'], descending; -inf marks an empty slot.
        best_left_out: float32 [B], the best score among the children not kept, -inf where all are.
    """

    parent: Tensor
    code: Tensor
    nodes: Tensor
    scores: Tensor
    best_left_out: Tensor


@dataclass(frozen=True, eq=False)
class Dead:
    """Per level, the prefixes all of whose items a user's list leaves out; int64 [B, E], filled with -1."""

    nodes: tuple[Tensor, ...]


def dead_nodes(trie: Trie, excluded: Tensor) -> Dead:
    """Finds the prefixes that lead nowhere once some items are left out.

    Args:
        trie: the catalogue.
        excluded: int64 [B, E], items left out, filled with -1; those outside the trie and repeated ones are ignored.
    """
    by_item, leaf_of = torch.sort(trie.leaf_items)
    place = torch.searchsorted(by_item, excluded.contiguous()).clamp(max=trie.num_items - 1)
    node = torch.where(by_item[place] == excluded, leaf_of[place], -1)
    node = torch.sort(node, dim=1).values
    repeated = functional.pad(node[:, 1:] == node[:, :-1], (1, 0))
    node = node.masked_fill(repeated, -1)
    is_leaf = node >= 0
    num_leaves = torch.ones_like(trie.leaf_items)
    levels: list[Tensor] = []
    for level in reversed(range(trie.num_levels)):
        under = (node[:, :, None] == node[:, None, :]) & is_leaf[:, None, :]
        is_dead = is_leaf & (under.sum(2) == num_leaves[node.clamp(min=0)])
        levels.append(node.masked_fill(~is_dead, -1))
        parent = torch.searchsorted(trie.offsets[level], node.contiguous(), right=True) - 1
        node = torch.where(is_leaf, parent, -1)
        total = functional.pad(torch.cumsum(num_leaves, 0), (1, 0))
        num_leaves = total[trie.offsets[level][1:]] - total[trie.offsets[level][:-1]]
    return Dead(tuple(reversed(levels)))


def best_children(
    trie: Trie,
    level: int,
    nodes: Tensor,
    scores: Tensor,
    log_probabilities: Tensor,
    beam_width: int,
    dead: Dead | None = None,
    renormalise: bool = False,
) -> Step:
    """The `beam_width` best children of each user's beams.

    Args:
        trie: the catalogue.
        level: level of `nodes`.
        nodes: int64 [B, K].
        scores: float32 [B, K], -inf where a slot is empty.
        log_probabilities: float32 [B, K, C] of the level's codes.
        beam_width: children kept per user.
        dead: prefixes that are not to be kept.
        renormalise: whether a node's probabilities are divided by their sum over its children.
    """
    num_users, width = nodes.shape
    offsets = trie.offsets[level]
    most = int((offsets[1:] - offsets[:-1]).max())
    child = offsets[nodes][..., None] + torch.arange(most, device=nodes.device)  # [B, K, F]
    is_child = (child < offsets[nodes + 1][..., None]) & torch.isfinite(scores)[..., None]
    child = child.clamp(max=len(trie.codes[level]) - 1)
    code = trie.codes[level][child]
    own = log_probabilities.gather(2, code).masked_fill(~is_child, _NO_BEAM)
    if renormalise:
        own = torch.log_softmax(own, dim=2).masked_fill(~is_child, _NO_BEAM)
    child_scores = scores[..., None] + own
    if dead is not None:
        is_dead = (child[..., None] == dead.nodes[level][:, None, None]).any(-1)
        child_scores = child_scores.masked_fill(is_dead, _NO_BEAM)
    flat = functional.pad(child_scores.flatten(1), (0, 1), value=_NO_BEAM)
    kept = min(beam_width, width * most)
    best, place = flat.topk(kept + 1, dim=1)
    slot = place[:, :kept].clamp(max=width * most - 1)
    return Step(
        slot // most,
        code.flatten(1).gather(1, slot),
        child.flatten(1).gather(1, slot),
        best[:, :kept],
        best[:, kept],
    )
