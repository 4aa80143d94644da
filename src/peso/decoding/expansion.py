"""The step of a beam search over a trie: the best children of every user's beams.

All shapes are fixed by the inputs and by two numbers per level that the trie stores, and nothing depends on the
catalogue's size (on a CPU, rows of children are read only as far as the longest goes; see `peso.decoding.children`).

Shapes: B users, K beams, C codes, W children looked at per beam (its codes or its row), E excluded items.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from peso.decoding.children import children_of
from peso.decoding.memory import NO_NODE, RememberedNodes
from peso.decoding.trie import NO_LEAF, Trie

_NO_BEAM = float("-inf")
_SURELY_NOT = -1e4
"""A log-probability that stays finite whatever it is multiplied by."""


@dataclass(frozen=True, eq=False)
class Step:
    """The beams after one more code, best first.

    Attributes:
        parent: int64 [B, K'], which earlier beam (slot number) each new beam continues.
        code: int64 [B, K'].
        nodes: int64 [B, K'], nodes of the next level; any of them in a slot without a beam.
        scores: float32 [B, K'], descending; -inf marks a slot without a beam.
        best_left_out: float32 [B], score of the best child that the width had no room for; -inf if there is none.
        by_model: float32 [B, K'], log-probability of each new beam by the model alone, finite; None without a memory.
    """

    parent: Tensor
    code: Tensor
    nodes: Tensor
    scores: Tensor
    best_left_out: Tensor
    by_model: Tensor | None


@dataclass(frozen=True, eq=False)
class Dead:
    """Nodes all of whose items are excluded, per user.

    Attributes:
        nodes: per level m, int64 [B, E], dead nodes of level m + 1, ascending, then fillers.
        parents: per level m, int64 [B, E], their parents in level m, ascending, then fillers.
    """

    nodes: tuple[Tensor, ...]
    parents: tuple[Tensor, ...]


def dead_nodes(trie: Trie, excluded: Tensor) -> Dead:
    """Which prefixes a user's list must not continue into, from the leaves up.

    Args:
        trie: the catalogue.
        excluded: int64 [B, E], items that each user's list must not name, in any order, filled with -1; items that
            the trie does not have are ignored.
    """
    leaves = trie.leaves_of(excluded)
    dead = torch.where(leaves == NO_LEAF, NO_NODE, leaves).sort(dim=1).values
    is_repeated = torch.zeros_like(dead, dtype=torch.bool)
    is_repeated[:, 1:] = dead[:, 1:] == dead[:, :-1]
    dead = dead.masked_fill(is_repeated, NO_NODE).sort(dim=1).values
    place = torch.arange(dead.shape[1], device=dead.device)
    nodes, parents = [], []
    for offsets in reversed(trie.offsets):
        inside = dead.clamp(max=torch.iinfo(offsets.dtype).max).to(offsets.dtype)
        parent = torch.searchsorted(offsets, inside, right=True) - 1
        parent = torch.where(dead == NO_NODE, NO_NODE, parent)
        nodes.append(dead)
        parents.append(parent)
        first = torch.searchsorted(parent, parent)
        num_dead = torch.searchsorted(parent, parent, right=True) - first
        real = parent.clamp(max=len(offsets) - 2)
        is_dead = (num_dead == offsets[real + 1] - offsets[real]) & (first == place) & (parent != NO_NODE)
        dead = torch.where(is_dead, parent, NO_NODE).sort(dim=1).values
    return Dead(tuple(nodes[::-1]), tuple(parents[::-1]))


def best_children(
    trie: Trie,
    level: int,
    nodes: Tensor,
    scores: Tensor,
    log_probabilities: Tensor,
    beam_width: int,
    dead: Dead | None = None,
    renormalise: bool = False,
    remembered: RememberedNodes | None = None,
    by_model: Tensor | None = None,
) -> Step:
    r"""The best continuations of every user's beams, $s_{child} = s_{beam} + \log p(code \mid beam)$.

    Args:
        trie: the items that may be named.
        level: the beams' level.
        nodes: int64 [B, K], the beams' nodes, distinct within a user; any node of the level where there is no beam.
        scores: float32 [B, K], log-probabilities in nats; -inf where there is no beam.
        log_probabilities: float32 [B, K, C], of the level's codes; C is at least the trie's number of codes.
        beam_width: beams to keep per user.
        dead: nodes that must not be entered (see `dead_nodes`).
        renormalise: whether p is renormalised over the children that the trie has under the beam's node, dead or not.
        remembered: what a memory adds to the children's probabilities (see `peso.decoding.memory`).
        by_model: float32 [B, K], log-probability of each beam by the model alone, finite; of no use without a memory.

    Returns:
        K' = min(beam_width, K W) beams per user.
    """
    assert log_probabilities.shape[2] >= trie.num_codes[level]
    children = children_of(trie, level, nodes)
    if remembered is None:
        of_model = scores
    else:
        assert by_model is not None, "a memory asks what the model thinks of every prefix"
        # log of what a count of one, and the model's probability times the strength, are worth behind each beam
        log_strengths = remembered.log_strengths(level, by_model)
        of_count = scores - torch.logaddexp(remembered.of_beams(level, nodes).log(), log_strengths)
        of_model = of_count + log_strengths
    if renormalise:
        child_BKW = children.read(log_probabilities, torch.zeros_like(scores))
        # The floor keeps a node without any possible child at -inf instead of NaN.
        normaliser = child_BKW.logsumexp(dim=2).clamp_min(torch.finfo(child_BKW.dtype).min)
        child_BKW.add_((of_model - normaliser).unsqueeze(2))
        by_model = None if by_model is None else by_model - normaliser
    else:
        child_BKW = children.read(log_probabilities, of_model)
    width, flat = child_BKW.shape[2], child_BKW.flatten(1)

    def columns_of(children_of_beams: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        return _columns(trie, level, nodes, scores, children_of_beams, parents, width, children.are_codes)

    if remembered is not None:
        columns, is_beam = columns_of(remembered.nodes[level], remembered.parents[level])
        beam = torch.div(columns, width, rounding_mode="floor")
        counted = remembered.weights[level].log() + of_count.gather(1, beam)
        uncounted = flat.gather(1, columns)
        gain = torch.logaddexp(uncounted, counted) - uncounted
        flat.scatter_add_(1, columns, gain.masked_fill_(~is_beam, 0.0))
    if dead is not None:
        columns, is_beam = columns_of(dead.nodes[level], dead.parents[level])
        flat.scatter_add_(1, columns, torch.zeros_like(columns, dtype=flat.dtype).masked_fill_(is_beam, _NO_BEAM))

    kept = min(beam_width, flat.shape[1])
    if flat.shape[1] > kept:
        best, slot = flat.topk(kept + 1, dim=1)
        left_out, best, slot = best.select(1, kept), best.narrow(1, 0, kept), slot.narrow(1, 0, kept)
    else:
        best, slot = flat.topk(kept, dim=1)
        left_out = torch.full_like(best[:, 0], _NO_BEAM)
    parent, place = torch.div(slot, width, rounding_mode="floor"), slot.remainder(width)
    code, new_nodes = children.choose(slot, parent, place)
    if by_model is not None:
        of_code = log_probabilities.flatten(1).gather(1, parent * log_probabilities.shape[2] + code)
        by_model = by_model.gather(1, parent).add_(of_code).clamp_min_(_SURELY_NOT)
    return Step(parent, code, new_nodes, best, left_out, by_model)


def _columns(
    trie: Trie,
    level: int,
    nodes: Tensor,
    scores: Tensor,
    children: Tensor,
    parents: Tensor,
    width: int,
    has_codes: bool,
) -> tuple[Tensor, Tensor]:
    """Where some nodes of the next level stand among the children of the beams.

    Args:
        trie: the catalogue.
        level: the beams' level.
        nodes: int64 [B, K], the beams' nodes.
        scores: float32 [B, K], -inf where there is no beam.
        children: int64 [B, E], nodes of the next level, and fillers.
        parents: int64 [B, E], their parents, and fillers.
        width: W, children looked at per beam.
        has_codes: whether a child's place among them is its code; otherwise it is its place under its parent.

    Returns:
        Columns of [B, K W], int64 [B, E], 0 where no beam is the parent; and bool [B, E], whether one is.
    """
    ordered, beam = nodes.masked_fill(scores == _NO_BEAM, -1).sort(dim=1)
    rank = torch.searchsorted(ordered, parents).clamp_(max=nodes.shape[1] - 1)
    is_beam = ordered.gather(1, rank) == parents
    inside = children.clamp(max=len(trie.codes[level]) - 1)
    starts = trie.offsets[level][parents.clamp(max=len(trie.offsets[level]) - 2)]
    place = trie.codes[level][inside].long() if has_codes else inside - starts
    return torch.where(is_beam, beam.gather(1, rank) * width + place, 0), is_beam
