r"""What a memory of counts adds to a beam search, exactly.

A memory holds, for one user, a weight c(y) for a few items: how often y stood near the user's last items. A prefix
weighs as much as its items together. At every level the model is the prior of a Dirichlet distribution over the codes
that may follow a prefix:

$p(code \mid prefix) = \frac{c(prefix, code) + \kappa p_{model}(code \mid prefix)}{c(prefix) + \kappa}, \quad
\kappa = \kappa_m \, p_{model}(prefix)^{\rho}$

with a strength $\kappa_m$ per level m, and an item's probability is the product over its codes. A user of whom nothing
is known gets the model alone. Behind a prefix that is remembered well, an item nobody has seen yet still gets the
model's share of the prefix's mass: what similar items have earned goes to it as well (back-off over prefixes). The
power $\rho$ says how much of that stays: at 0 the model has the same say behind every prefix and all of it goes on;
at 1, with one strength for all levels, items are mixed one by one, $(c(y) + \kappa p_{model}(y)) / (c + \kappa)$, and
none does.

Source: hierarchical Dirichlet back-off as in language models (MacKay and Peto, 1995), with a language model as prior.

Shapes: B users, E items in memory, K beams.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from peso.decoding.trie import NO_LEAF, Trie
from peso.lm.device import moved

NO_NODE = torch.iinfo(torch.int64).max


@dataclass(frozen=True, eq=False)
class Memory:
    """What is remembered for a batch of users.

    Attributes:
        items: int64 [B, E], filled with -1.
        weights: float32 [B, E], c, 0 in fillers.
        strengths: kappa_m > 0 of each level, the weight of the model.
        prefix_power: rho in [0, 1].
    """

    items: Tensor
    weights: Tensor
    strengths: tuple[float, ...]
    prefix_power: float

    def to(self, device: torch.device) -> "Memory":
        """The same on another device."""
        return Memory(moved(self.items, device), moved(self.weights, device), self.strengths, self.prefix_power)


@dataclass(frozen=True, eq=False)
class RememberedNodes:
    """The same as weights of prefixes.

    Attributes:
        nodes: per level m, int64 [B, E], distinct nodes of level m + 1 with a remembered item behind them, ascending,
            then fillers.
        parents: per level m, int64 [B, E], their parents in level m; fillers where there is no node.
        weights: per level m, float32 [B, E], c of the node; 0 in fillers.
        total: float32 [B, 1], c of the root.
        strengths: kappa_m of each level.
        prefix_power: rho.
    """

    nodes: tuple[Tensor, ...]
    parents: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    total: Tensor
    strengths: tuple[float, ...]
    prefix_power: float

    def log_strengths(self, level: int, prefix_by_model: Tensor) -> Tensor:
        """Log of kappa behind some prefixes.

        Args:
            level: of the nodes.
            prefix_by_model: float32 [B, K], log-probability of each prefix by the model alone.

        Returns:
            float32 [B, K].
        """
        return math.log(self.strengths[level]) + self.prefix_power * prefix_by_model

    def of_beams(self, level: int, nodes: Tensor) -> Tensor:
        """C of some nodes of a level.

        Args:
            level: of the nodes.
            nodes: int64 [B, K].

        Returns:
            float32 [B, K], 0 where nothing is remembered behind a node.
        """
        if level == 0:
            return self.total.expand(nodes.shape)
        known = self.nodes[level - 1]
        place = torch.searchsorted(known, nodes).clamp_(max=known.shape[1] - 1)
        return torch.where(known.gather(1, place) == nodes, self.weights[level - 1].gather(1, place), 0.0)


def remembered_nodes(trie: Trie, memory: Memory) -> RememberedNodes:
    """Sums the weights of a memory under every prefix, from the leaves up.

    Args:
        trie: the catalogue; weight on items that it does not have is ignored.
        memory: what is remembered.
    """
    leaves = trie.leaves_of(memory.items)
    nodes, order = torch.where(leaves == NO_LEAF, NO_NODE, leaves).sort(dim=1)
    weights = memory.weights.gather(1, order).masked_fill_(nodes == NO_NODE, 0.0)
    total = weights.sum(1, keepdim=True)
    by_level = []
    for offsets, codes in zip(reversed(trie.offsets), reversed(trie.codes), strict=True):
        is_first = torch.ones_like(nodes, dtype=torch.bool)
        is_first[:, 1:] = nodes[:, 1:] != nodes[:, :-1]
        slot = is_first.cumsum(1) - 1
        # Distinct nodes move to the front, in order, and their weights add up there.
        distinct = torch.full_like(nodes, NO_NODE).scatter_(1, slot, nodes)
        weights = torch.zeros_like(weights).scatter_add_(1, slot, weights)
        inside = distinct.clamp(max=len(codes) - 1).to(offsets.dtype)
        parents = torch.searchsorted(offsets, inside, right=True) - 1
        parents = torch.where(distinct == NO_NODE, NO_NODE, parents)
        by_level.append((distinct, parents, weights))
        nodes = parents
    shown, parents_of, weights_of = zip(*reversed(by_level), strict=True)
    return RememberedNodes(shown, parents_of, weights_of, total, memory.strengths, memory.prefix_power)
