"""A split of the data by users instead of time: every block has users of its own (the paper's user-disjoint split).

Users are drawn into blocks at random, and all events of a user are then of its block. Blocks keep their share of the
events. Nobody returns and nothing drifts: the setting of many tasks, for which methods with several adapters were
made, where blocks differ in who is in them and not in when. The paper gives no more than the name; this is its plain
reading.
"""

from dataclasses import replace

import numpy as np

from peso.data.dataset import Dataset
from peso.data.examples import targets_of_block
from peso.errors import DataError


def split_by_users(dataset: Dataset, seed: int) -> Dataset:
    """The same users, items and events, in blocks that share no user.

    Args:
        dataset: the natural split.
        seed: of the draw.

    Returns:
        Blocks whose number of events differs from the natural split's by less than the longest user.

    Raises:
        DataError: there are too few users for a test target in every block.
    """
    sizes = np.diff(dataset.user_offsets)
    drawn = np.random.default_rng(seed).permutation(dataset.num_users)
    ends = np.bincount(dataset.event_block, minlength=dataset.num_blocks).cumsum()
    # A user belongs to the block that the middle of its events falls into.
    middles = np.cumsum(sizes[drawn]) - sizes[drawn] / 2
    block_of_user = np.empty(dataset.num_users, dtype=np.int64)
    block_of_user[drawn] = np.minimum(np.searchsorted(ends, middles, side="right"), dataset.num_blocks - 1)
    blocks = block_of_user[dataset.event_user]
    if len(np.unique(blocks)) < dataset.num_blocks:
        raise DataError(f"{dataset.num_users} users are too few for {dataset.num_blocks} blocks that share none.")
    split = replace(dataset, event_block=blocks, source=f"{dataset.source}, users drawn into blocks (seed {seed})")
    for block in range(split.num_blocks):
        if not len(targets_of_block(split, block, "test")):
            raise DataError(
                f"block {block} of a user-disjoint split has no user with three events; {dataset.num_users} users are "
                f"too few for {dataset.num_blocks} blocks."
            )
    return split
