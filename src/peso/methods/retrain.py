"""LoRA trained on all data so far, anew at every block: what an update is meant to save."""

from collections.abc import Sequence

import numpy as np

from peso.data.dataset import Dataset, IntArray
from peso.data.examples import targets_of_block
from peso.methods.base import BlockView, ContinualMethod, Leg


class Retrain(ContinualMethod):
    """Starts from v_0 every time; its cost grows with the history."""

    def legs(self, view: BlockView) -> Sequence[Leg]:
        """One leg from block 0's adapter."""
        return [Leg(view.state_after(0), self.examples(view.dataset, view.block, view.seed), token_rows_after=0)]

    def examples(self, dataset: Dataset, block: int, seed: int) -> IntArray:
        """Training targets of every block up to this one."""
        return np.sort(np.concatenate([targets_of_block(dataset, one, "train") for one in range(block + 1)]))
