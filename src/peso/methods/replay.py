"""Experience replay: a single evolving LoRA that sees some of the past again with every block."""

import numpy as np

from peso.config import ReplayConfig
from peso.data.dataset import Dataset, IntArray
from peso.data.examples import targets_of_block
from peso.methods.base import ContinualMethod
from peso.seeding import derive_seed


class Replay(ContinualMethod):
    """Adds training targets of users drawn from all earlier blocks, each (user, block) with equal chance.

    A draw without replacement from everything seen is what a reservoir holds; the log is kept anyway, so the draw is
    made anew at each block instead of carrying the reservoir along.
    """

    def __init__(self, config: ReplayConfig) -> None:
        """Keeps the size.

        Args:
            config: how much of the past is seen again.
        """
        self._share = config.share

    def examples(self, dataset: Dataset, block: int, seed: int) -> IntArray:
        """The block's training targets, and of earlier ones as many as its share says."""
        new = targets_of_block(dataset, block, "train")
        old = np.concatenate([targets_of_block(dataset, one, "train") for one in range(block)])
        keys = dataset.event_user[old].astype(np.int64) * dataset.num_blocks + dataset.event_block[old]
        distinct, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
        order = np.random.default_rng(derive_seed(seed, "replay", str(block))).permutation(len(distinct))
        num_users = int(np.searchsorted(np.cumsum(counts[order]), self._share * len(new), side="left")) + 1
        is_drawn = np.zeros(len(distinct), dtype=bool)
        is_drawn[order[:num_users]] = True
        return np.sort(np.concatenate([new, old[is_drawn[place]]]))
