r"""What a memory of counts adds to a beam search, exactly.

A memory holds, for one user, a weight c(y) for a few items: how often y followed the user's last items. With the model
as the prior of a Dirichlet distribution of strength kappa, the probability of the next item is

$p(y) = (c(y) + \kappa p_{model}(y)) / (N + \kappa)$, with N the sum of all weights.

A user of whom nothing is known gets the model alone, one of many counts the counts; a new event changes c at once and
needs no training. The probability of a prefix is the sum over the items behind it, so the search over prefixes stays
exact: what the memory says of a prefix is the weight of its items behind that prefix.

Shapes: B users, E items in memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from peso.decoding.trie import NO_LEAF, Trie

NO_NODE = torch.iinfo(torch.int64).max


@dataclass(frozen=True, eq=False)
class Memory:
    """What is remembered for a batch of users.

    Attributes:
        items: int64 [B, E], filled with -1.
        weights: float32 [B, E], c, 0 in fillers.
        strength: kappa > 0, the weight of the model.
    """

    items: Tensor
    weights: Tensor
    strength: float

    def to(self, device: torch.device) -> "Memory":
        """The same on another device."""
        return Memory(self.items.to(device), self.weights.to(device), self.strength)


@dataclass(frozen=True, eq=False)
class RememberedNodes:
    """The same as weights of prefixes.

    Attributes:
        nodes: per level m, int64 [B, E], distinct nodes of level m + 1 with a remembered item behind them, and fillers.
        parents: per level m, int64 [B, E], their parents in level m; fillers where there is no node.
        log_shares: per level m, float32 [B, E], log of (the node's weight / (N + kappa)).
        model_log_share: float32 [B, 1], log of kappa / (N + kappa).
    """

    nodes: tuple[Tensor, ...]
    parents: tuple[Tensor, ...]
    log_shares: tuple[Tensor, ...]
    model_log_share: Tensor


def remembered_nodes(trie: Trie, memory: Memory) -> RememberedNodes:
    """Sums the weights of a memory under every prefix, from the leaves up.

    Args:
        trie: the catalogue; weight on items that it does not have is lost to all of its items alike.
        memory: what is remembered.
    """
    total = memory.weights.double().sum(1, keepdim=True) + memory.strength
    leaves = trie.leaves_of(memory.items)
    nodes, order = torch.where(leaves == NO_LEAF, NO_NODE, leaves).sort(dim=1)
    weights = memory.weights.double().gather(1, order) / total
    place = torch.arange(nodes.shape[1], device=nodes.device)
    by_level = []
    for offsets in reversed(trie.offsets):
        running = torch.nn.functional.pad(weights.cumsum(1), (1, 0))
        first, end = torch.searchsorted(nodes, nodes), torch.searchsorted(nodes, nodes, right=True)
        is_first = (first == place) & (nodes != NO_NODE)
        share = running.gather(1, end) - running.gather(1, first)
        inside = nodes.clamp(max=int(offsets[-1]) - 1).to(offsets.dtype)
        parents = torch.searchsorted(offsets, inside, right=True) - 1
        parents = torch.where(nodes == NO_NODE, NO_NODE, parents)
        shown = torch.where(is_first, nodes, NO_NODE)
        log_share = torch.where(is_first, share, 0.0).log().float()
        by_level.append((shown, torch.where(is_first, parents, NO_NODE), log_share))
        nodes = parents
    shown_nodes, shown_parents, log_shares = zip(*reversed(by_level), strict=True)
    return RememberedNodes(shown_nodes, shown_parents, log_shares, (memory.strength / total).log().float())
