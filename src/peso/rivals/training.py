"""Training of SASRec on some targets; the epoch that predicts validation targets best is kept."""

import copy
import logging
import math
from dataclasses import dataclass

import numpy as np
import torch

from peso.data.dataset import Dataset, IntArray
from peso.data.shuffling import in_another_order
from peso.rivals.network import SasRecNetwork
from peso.rivals.rows import training_rows
from peso.rivals.scoring import mean_loss
from peso.rivals.softmax_loss import softmax_loss
from peso.seeding import derive_seed

logger = logging.getLogger(__name__)

ROWS_PER_STEP = 32
"""Small steps: four times as many rows lost a tenth of NDCG@10 on the validation targets of Video Games."""

WARMUP_FRACTION = 0.05
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        name: for the log and the random numbers.
        learning_rate: peak rate of AdamW.
        epochs: passes over the targets.
        seed: of order and dropout.
        shuffled_share: of the users whose targets an epoch shows in another order, as peso's own training does.
    """

    name: str
    learning_rate: float
    epochs: int
    seed: int
    shuffled_share: float = 0.0


def train(
    network: SasRecNetwork, dataset: Dataset, targets: IntArray, valid: IntArray, candidates: IntArray, stage: Stage
) -> None:
    """Trains in place and ends with the weights of the epoch of the lowest validation loss.

    Args:
        network: what to train.
        dataset: the events.
        targets: event indices to predict, int64; those without a history are left out. Where none is left, the
            network stays as it is.
        valid: event indices that choose the epoch, int64; those without a history or outside the candidates are left
            out. Where none is left, the last epoch is kept.
        candidates: int64, ascending, the items that the softmax runs over; holds every target's item.
        stage: rate, length and seed.
    """
    num_rows = len(training_rows(dataset, targets, network.max_history).items)
    if not num_rows:
        return
    row_of_item = torch.zeros(dataset.num_items, dtype=torch.long)
    row_of_item[candidates] = torch.arange(len(candidates))
    candidate_rows = torch.from_numpy(candidates)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=stage.learning_rate, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98), fused=True
    )
    num_steps = stage.epochs * math.ceil(num_rows / ROWS_PER_STEP)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, num_steps))
    order = np.random.default_rng(derive_seed(stage.seed, "sasrec order", stage.name))
    best, best_loss = copy.deepcopy(network.state_dict()), math.inf
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(stage.seed, "sasrec dropout", stage.name))
        for epoch in range(stage.epochs):
            shuffling = derive_seed(stage.seed, "sasrec shuffling", stage.name, epoch)
            shown = in_another_order(dataset, targets, stage.shuffled_share, shuffling)
            rows = training_rows(shown, targets, network.max_history)
            items, labels = torch.from_numpy(rows.items), torch.from_numpy(rows.labels)
            network.train()
            for chosen in torch.from_numpy(order.permutation(num_rows)).split(ROWS_PER_STEP):
                is_target = labels[chosen] >= 0
                length = int(is_target.any(0).nonzero().max()) + 1
                states = network(items[chosen, :length])[is_target[:, :length]]
                wanted = row_of_item[labels[chosen][is_target]]
                loss = softmax_loss(states, network.items.weight[candidate_rows], wanted) / len(states)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            valid_loss = mean_loss(network, dataset, valid, candidates)
            logger.info("%s: epoch %d, validation loss %.4f", stage.name, epoch + 1, valid_loss)
            if not valid_loss >= best_loss:  # a loss over no target is not a number, which is never the worse
                best, best_loss = copy.deepcopy(network.state_dict()), valid_loss
    network.load_state_dict(best)


def _rate(step: int, num_steps: int) -> float:
    """The share of the peak rate: a linear warm-up, then a cosine to zero."""
    warmup = min(1.0, (step + 1) / (WARMUP_FRACTION * num_steps + 1))
    return warmup * 0.5 * (1 + math.cos(math.pi * step / max(1, num_steps)))
