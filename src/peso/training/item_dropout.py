"""Each pass over training targets leaves out some events, so that no pass shows the same histories.

What stood far apart then stands next to each other at times, and no history can be learned by heart. Leaving items out
of sequences is a common augmentation of sequential recommenders; here it takes events out of the table and cuts rows
from what is left, so that one row still answers for all its targets.
"""

from dataclasses import replace

import numpy as np

from peso.data.dataset import Dataset
from peso.lm.rows import many_targets_per_row
from peso.seeding import derive_seed
from peso.training.stage import Stage


def without_some_items(stage: Stage, epoch: int) -> Stage:
    """What an epoch of a stage shows.

    Args:
        stage: as it would be shown whole; with no dropout it is returned as it is.
        epoch: 0-based; the same one leaves out the same events in every life of a stage and in every process.

    Returns:
        The stage with fewer events behind its builder, and rows of those training targets that are left: one at least.
    """
    share = stage.training.item_dropout
    if share == 0 or not len(stage.train_rows):
        return stage
    dataset, rows = stage.builder.dataset, stage.train_rows
    is_target = np.zeros(dataset.num_events, dtype=bool)
    is_target[rows.targets] = True
    random = np.random.default_rng(derive_seed(stage.seed, "items", stage.name, epoch))
    is_left = random.random(dataset.num_events) >= share
    # A data set has an event in every block, and an epoch a target.
    is_left[np.unique(dataset.event_block, return_index=True)[1]] = True
    is_left[rows.first_target[0]] = True
    left = Dataset(
        dataset.user_ids, dataset.item_ids, dataset.titles,
        dataset.event_user[is_left], dataset.event_item[is_left], dataset.event_block[is_left],
        dataset.num_blocks, dataset.source,
    )  # fmt: skip
    targets = np.flatnonzero(is_target[is_left])
    shown = many_targets_per_row(left, targets, stage.max_history, stage.training.targets_per_row)
    return replace(stage, builder=stage.builder.over(left), train_rows=shown)
