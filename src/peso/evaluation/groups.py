"""Which kind of user a target belongs to: new, dormant, or returning."""

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import Dataset, IntArray

USER_GROUPS = ("new", "dormant", "returning")
"""The groups of users, which are disjoint and cover every target."""


def user_groups(dataset: Dataset, targets: IntArray) -> NDArray[np.str_]:
    """The group of each target's user, seen from the block the target is in.

    For a target of user u in block b: "new" has no event before block b; "returning" has an event in block b - 1;
    "dormant" has earlier events but none in block b - 1. In block 0 everybody is new.

    Args:
        dataset: the events.
        targets: event indices, int64 [T]. For the next-block protocol, too, the target's own block counts.

    Returns:
        str [T], each one of `USER_GROUPS`.

    Source: the idea of the PESO paper, Table 3 (users who were active early, were absent, and came back); differs from
    the paper: there "dormant" is judged over all middle blocks and for the last block only, here per block.
    """
    users, blocks = dataset.event_user[targets], dataset.event_block[targets]
    first_blocks = dataset.event_block[dataset.user_offsets[users]]
    # Events are sorted by user, then block, so (user, block) as one number is sorted and can be searched.
    keys = dataset.event_user * dataset.num_blocks + dataset.event_block
    wanted = users * dataset.num_blocks + blocks - 1
    was_active_in_previous = keys[np.searchsorted(keys, wanted)] == wanted
    is_new = first_blocks == blocks
    return np.select([is_new, was_active_in_previous], ["new", "returning"], "dormant")
