"""What a trained SASRec says of the next item: its best items, and how probable the true one was.

Shapes: B histories at a time, D hidden size, N candidate items.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from peso.data.dataset import Dataset, IntArray
from peso.rivals.network import SasRecNetwork
from peso.rivals.rows import histories

SCORED_AT_ONCE = 512
"""Histories whose scores are held at once."""


def mean_loss(network: SasRecNetwork, dataset: Dataset, targets: IntArray, candidates: IntArray) -> float:
    """Mean negative log-probability of the targets' items among candidates, in nats.

    Args:
        network: what scores.
        dataset: the events.
        targets: event indices, int64; those without a history or outside the candidates are left out.
        candidates: int64, ascending.

    Returns:
        Not a number where no target is left.
    """
    has_history = targets > dataset.user_offsets[dataset.event_user[targets]]
    targets = targets[has_history & np.isin(dataset.event_item[targets], candidates)]
    if not len(targets):
        return float("nan")
    wanted = torch.from_numpy(np.searchsorted(candidates, dataset.event_item[targets])).split(SCORED_AT_ONCE)
    scores = scores_in_pieces(network, dataset, targets, candidates)
    losses = [cross_entropy(piece, labels, reduction="sum") for piece, labels in zip(scores, wanted, strict=True)]
    return float(torch.stack(losses).sum() / len(targets))


def best_items(network: SasRecNetwork, dataset: Dataset, targets: IntArray, candidates: IntArray, k: int) -> IntArray:
    """The highest-scoring candidates after each history.

    Args:
        network: what scores.
        dataset: the events.
        targets: event indices, int64 [T], each with a history.
        candidates: int64, ascending.
        k: how many.

    Returns:
        int64 [T, min(k, number of candidates)], best first.
    """
    length = min(k, len(candidates))
    pieces = scores_in_pieces(network, dataset, targets, candidates)
    rows = [candidates[scores.topk(length).indices.numpy()] for scores in pieces]
    return np.concatenate([*rows, np.empty((0, length), dtype=np.int64)])


@torch.no_grad()
def scores_in_pieces(
    network: SasRecNetwork, dataset: Dataset, targets: IntArray, candidates: IntArray
) -> Iterator[Tensor]:
    """Scores [B, N] of all targets, in their order, without dropout."""
    network.eval()
    items, lengths = histories(dataset, targets, network.max_history)
    table_ND = network.items.weight[torch.from_numpy(candidates)]
    for start in range(0, len(targets), SCORED_AT_ONCE):
        piece = slice(start, start + SCORED_AT_ONCE)
        states_BLD = network(torch.from_numpy(items[piece]))
        last_BD = states_BLD[torch.arange(len(states_BLD)), torch.from_numpy(lengths[piece]) - 1]
        yield last_BD @ table_ND.T
