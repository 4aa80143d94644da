"""A level of few nodes as two tables of nodes and codes: one read where bits would have to be spread and counted.

They are derived in memory when a search first needs them and are no part of a trie's file; a trie makes them for its
root and for levels of at most 2^16 nodes times codes, so they take at most 0.75 MiB whatever the catalogue.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DenseLevel:
    """The children of all nodes of one level.

    Attributes:
        closed: float32 [nodes, codes], 0 where a code leads to a child and -inf where it does not.
        children: int64 [nodes x codes], the child's node number in the next level; 0 where there is none.
        is_full: whether every code leads to a child at every node.
    """

    closed: Tensor
    children: Tensor
    is_full: bool


def dense_level(offsets: Tensor, codes: Tensor, num_codes: int) -> DenseLevel:
    """Fills the tables of a level.

    Args:
        offsets: integers [nodes, and one more], where each node's children start; see `Trie.offsets`.
        codes: integers [children], the code that leads to each child.
        num_codes: one more than the largest code.
    """
    num_nodes, num_children, device = len(offsets) - 1, len(codes), codes.device
    # Outside inference mode, for the tables outlive the search that first needs them.
    with torch.inference_mode(False):
        nodes, num_of_node = torch.arange(num_nodes, device=device), (offsets[1:] - offsets[:-1]).long()
        parent = torch.repeat_interleave(nodes, num_of_node, output_size=num_children)
        cell = parent * num_codes + codes.long()
        closed = torch.full((num_nodes * num_codes,), float("-inf"), device=device)
        children = torch.zeros(num_nodes * num_codes, dtype=torch.int64, device=device)
        closed[cell] = 0.0
        children[cell] = torch.arange(num_children, device=device)
        return DenseLevel(closed.view(num_nodes, num_codes), children, num_children == num_nodes * num_codes)
