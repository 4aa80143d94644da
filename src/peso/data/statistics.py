"""What a data set holds, block by block."""

import numpy as np
import polars as pl

from peso.data.dataset import Dataset
from peso.data.examples import items_seen_in_training, targets_of_block


def block_statistics(dataset: Dataset) -> pl.DataFrame:
    """Counts per block.

    Returns:
        One row per block: `block`, `users`, `interactions`, `training_targets`, `test_targets`, `new_items` (first
        seen in this block), `users_with_earlier_history`, and `unseen_test_targets` (test targets whose item is in no
        earlier block and is no training target of this one).
    """
    rows = []
    first_blocks = np.full(dataset.num_users, dataset.num_blocks)
    np.minimum.at(first_blocks, dataset.event_user, dataset.event_block)
    for block in range(dataset.num_blocks):
        in_block = dataset.event_block == block
        users = np.unique(dataset.event_user[in_block])
        training = targets_of_block(dataset, block, "train")
        test = targets_of_block(dataset, block, "test")
        seen = items_seen_in_training(dataset, block)
        rows.append(
            {
                "block": block,
                "users": len(users),
                "interactions": int(in_block.sum()),
                "training_targets": len(training),
                "test_targets": len(test),
                "new_items": int((dataset.item_first_block == block).sum()),
                "users_with_earlier_history": int((first_blocks[users] < block).sum()),
                "unseen_test_targets": int((~seen[dataset.event_item[test]]).sum()),
            }
        )
    return pl.DataFrame(rows)
