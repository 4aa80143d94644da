"""Blocks that were learned already, taken together as a new block 0."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from peso.data.dataset import Dataset
from peso.data.importing import RECORD
from peso.data.item_texts import TEXTS_FILE
from peso.data.item_times import TIMES_FILE
from peso.data.storage import read_facts, save_dataset
from peso.errors import DataError
from peso.files import write_json


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


def save_merged(natural: Path, merged: Dataset, folder: Path) -> None:
    """Writes merged data with what came with them: texts, times, and the account of the import, its cuts merged too.

    Args:
        natural: `W/data` of the data before.
        merged: what `merge_first_blocks` gave.
        folder: where to write; exists.

    Raises:
        WorkspaceError: the account is damaged.
    """
    save_dataset(merged, folder)
    for name in (TEXTS_FILE, TIMES_FILE):
        if (natural / name).exists():
            shutil.copyfile(natural / name, folder / name)
    if (natural / RECORD).exists():
        record = read_facts(natural / RECORD, "account of an import", {"block_starts?": list})
        starts = record.get("block_starts", [])
        kept = starts[:1] + starts[len(starts) - merged.num_blocks + 1 :]
        write_json(folder / RECORD, record | ({"block_starts": kept} if starts else {}))
