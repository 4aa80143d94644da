"""Training targets of some users in another order, one that they might as well have had.

Who took two items in a row would often have taken them the other way round: pairs counted backwards tell nearly as
much as forwards (see `peso.memory.choice`). A network that reads from left to right meets one way only, unless it is
shown others.
"""

from dataclasses import replace

import numpy as np

from peso.data.dataset import Dataset, IntArray


def in_another_order(dataset: Dataset, targets: IntArray, share: float, seed: int) -> Dataset:
    """The events, of which some users' targets have changed places: within a user and a block, with each other.

    Args:
        dataset: the events.
        targets: distinct event indices that may change places, int64; all others, validation and test targets among
            them, keep theirs.
        share: of the users that are shuffled, in [0, 1]; the others' events stay.
        seed: of who is shuffled, and how.

    Returns:
        As many events with the same indices, users and blocks; the data set itself where nobody is shuffled.
    """
    if share == 0 or not len(targets):
        return dataset
    targets = np.sort(targets)
    users = dataset.event_user[targets]
    random = np.random.default_rng(seed)
    is_shuffled = random.random(dataset.num_users) < share
    keys = np.where(is_shuffled[users], random.permutation(len(targets)), np.arange(len(targets)))
    items = dataset.event_item.copy()
    items[targets] = dataset.event_item[targets[np.lexsort((keys, dataset.event_block[targets], users))]]
    return replace(dataset, event_item=items)
