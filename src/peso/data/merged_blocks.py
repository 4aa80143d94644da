"""Blocks that were learned already, taken together as a new block 0."""

from dataclasses import replace

import numpy as np

from peso.data.dataset import Dataset
from peso.errors import DataError


def merge_first_blocks(dataset: Dataset, last: int) -> Dataset:
    """The same events with blocks 0 to `last` as block 0; later blocks keep their order.

    Args:
        dataset: the events.
        last: at least 0; 0 changes nothing.

    Raises:
        DataError: no block would be left to learn.
    """
    if dataset.num_blocks == 1:
        raise DataError("the data have one block, so none would be left to learn; import later data first.")
    if not 0 <= last < dataset.num_blocks - 1:
        raise DataError(
            f"block {last} is not followed by another one; of {dataset.num_blocks} blocks, give one from 0 to "
            f"{dataset.num_blocks - 2}."
        )
    blocks = np.maximum(dataset.event_block - last, 0)
    source = f"{dataset.source}, blocks 0 to {last} as one" if last else dataset.source
    return replace(dataset, event_block=blocks, num_blocks=dataset.num_blocks - last, source=source)
