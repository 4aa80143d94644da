"""SASRec, a sequential network over item numbers, kept up to date in two ways."""

import copy
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from peso.baselines.base import Baseline
from peso.baselines.lists import completed
from peso.data.dataset import Dataset, IntArray
from peso.data.examples import targets_of_block
from peso.memory.order import share_to_shuffle
from peso.rivals.network import SasRecNetwork
from peso.rivals.scoring import best_items
from peso.rivals.training import ROWS_PER_STEP, WEIGHT_DECAY, Stage, train
from peso.seeding import derive_seed


@dataclass(frozen=True)
class SasRecSettings:
    """What decides the lists; found on the validation targets of Video Games.

    Attributes:
        hidden_size: length of an item's vector and of a state.
        num_blocks: self-attention blocks.
        num_heads: attention heads.
        dropout: rate.
        max_history: how many of the last items are read.
        learning_rate: peak rate from scratch.
        epochs: passes over the targets from scratch.
        update_learning_rate: peak rate of an update.
        update_epochs: passes over the targets of an update.
        shuffled_share: of the users, which each pass shows in another order; by counts, as in peso's own training.
        seed: of weights, order and dropout.
    """

    hidden_size: int = 64
    num_blocks: int = 2
    num_heads: int = 2
    dropout: float = 0.2
    max_history: int = 20
    learning_rate: float = 1e-3
    epochs: int = 20
    update_learning_rate: float = 1e-3
    update_epochs: int = 8
    shuffled_share: float | Literal["auto"] = "auto"
    seed: int = 0


class SasRec(Baseline):
    """What both ways share: items known by then are ranked by score; users without a history get the popular ones.

    The epoch is chosen by the loss of the block's validation targets, which are not trained on.
    """

    settings: ClassVar[SasRecSettings] = SasRecSettings()
    network: SasRecNetwork
    shuffled_share: float

    def __init__(self, dataset: Dataset, model_block: int, previous: Self | None = None) -> None:
        """Trains; see `Baseline`."""
        super().__init__(dataset, model_block, previous)
        self.model_block = model_block
        self.known_items = np.unique(dataset.event_item[self.known_events])
        share = self.settings.shuffled_share if previous is None else previous.shuffled_share
        self.shuffled_share = share_to_shuffle(dataset) if share == "auto" else share

    @classmethod
    def config(cls) -> dict[str, Any]:
        """See `Baseline.config`."""
        return asdict(cls.settings) | {"rows_per_step": ROWS_PER_STEP, "weight_decay": WEIGHT_DECAY}

    def lists(self, targets: IntArray, k: int, allowed: IntArray) -> IntArray:
        """See `Baseline.lists`."""
        popular = self.popular(k, allowed)
        rows = np.tile(completed(popular[:0], popular, k), (len(targets), 1))
        with_history = np.flatnonzero(targets > self.dataset.user_offsets[self.dataset.event_user[targets]])
        candidates = np.intersect1d(self.known_items, allowed)
        best = best_items(self.network, self.dataset, targets[with_history], candidates, k)
        rows[with_history, : best.shape[1]] = best
        rows[with_history, best.shape[1] :] = -1
        return rows

    def _from_scratch(self, targets: IntArray) -> SasRecNetwork:
        settings = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "sasrec weights"))
            network = SasRecNetwork(
                self.dataset.num_items,
                settings.max_history,
                settings.hidden_size,
                settings.num_blocks,
                settings.num_heads,
                settings.dropout,
            )
        self._train(network, targets, settings.learning_rate, settings.epochs)
        return network

    def _train(self, network: SasRecNetwork, targets: IntArray, learning_rate: float, epochs: int) -> None:
        name = f"{self.name}, block {self.model_block}"
        stage = Stage(name, learning_rate, epochs, self.settings.seed, self.shuffled_share)
        valid = targets_of_block(self.dataset, self.model_block, "valid")
        train(network, self.dataset, targets, valid, self.known_items, stage)


class SasRecUpdated(SasRec):
    """Trained on block 0, then trained further on each block's own training targets."""

    name: ClassVar[str] = "sasrec"

    def __init__(self, dataset: Dataset, model_block: int, previous: Self | None = None) -> None:
        """Trains from where `previous` ended, or from scratch; see `Baseline`."""
        super().__init__(dataset, model_block, previous)
        if previous is None:
            self.network = self._from_scratch(self.block_events)
        else:
            self.network = copy.deepcopy(previous.network)
            self._train(
                self.network, self.block_events, self.settings.update_learning_rate, self.settings.update_epochs
            )


class SasRecRetrained(SasRec):
    """Trained from scratch after each block, on all known events."""

    name: ClassVar[str] = "sasrec_retrained"

    def __init__(self, dataset: Dataset, model_block: int, previous: Self | None = None) -> None:
        """Trains from scratch; see `Baseline`."""
        super().__init__(dataset, model_block, previous)
        self.network = self._from_scratch(self.known_events)
