"""The layout that the paper's authors released: a JSON file per block and an index of semantic IDs.

`*.block_N.json` holds {user: {"previous_block": [item, ...], "current_block": [item, ...]}} in time order;
`*.index*.json` holds {item: ["<a_51>", "<b_218>", ...]}, the letter giving the level.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from peso.data.dataset import Dataset
from peso.data.imported import ImportedData
from peso.data.sources.code_index import code_table, natural_order, read_code_index
from peso.data.sources.json_object import read_object
from peso.errors import DataError

MIN_EVENTS_PER_USER = 2
_BLOCK_FILE = re.compile(r"\.block_([0-9]+)\.json$")


def read_peso_release(folder: Path) -> ImportedData:
    """Reads and checks a release.

    Args:
        folder: holds `*.block_0.json`, `*.block_1.json`, ... and one `*.index*.json`.

    Raises:
        DataError: a file is missing, damaged or not of this layout; there is no block after block 0; an item has no
            code; a user has a single event; or a user's `previous_block` is not what the earlier blocks say.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the *.block_N.json files.")
    block_files = _block_files(folder)
    index_files = sorted(folder.glob("*.index*.json"))
    if len(index_files) != 1:
        raise DataError(f"{folder} holds {len(index_files)} *.index*.json files; exactly one gives the semantic IDs.")
    codes_of_item = read_code_index(index_files[0])
    item_ids = sorted(codes_of_item, key=natural_order)
    item_number = {item: number for number, item in enumerate(item_ids)}
    events_of_user = _read_events(block_files, item_number, index_files[0])

    user_ids = sorted(events_of_user, key=natural_order)
    for user in user_ids:
        if len(events_of_user[user]) < MIN_EVENTS_PER_USER:
            raise DataError(
                f"user {user!r} has one event in all blocks of {folder}; a history and a target need at least two, "
                "so remove the user."
            )
    counts = [len(events_of_user[user]) for user in user_ids]
    table = np.array([event for user in user_ids for event in events_of_user[user]], dtype=np.int64)
    dataset = Dataset(
        user_ids,
        item_ids,
        [""] * len(item_ids),
        np.repeat(np.arange(len(user_ids)), counts),
        table[:, 1].copy(),
        table[:, 0].copy(),
        len(block_files),
        f"PESO release {_BLOCK_FILE.sub('', block_files[0].name)}",
    )
    return ImportedData(dataset, *code_table(codes_of_item, item_ids))


def _block_files(folder: Path) -> list[Path]:
    numbered: dict[int, Path] = {}
    for path in sorted(folder.glob("*.json")):
        match = _BLOCK_FILE.search(path.name)
        if match is None:
            continue
        other = numbered.setdefault(int(match.group(1)), path)
        if other is not path:
            raise DataError(
                f"{folder} has two files of block {int(match.group(1))}, {other.name} and {path.name}; "
                "give a folder with one data set."
            )
    if not numbered:
        raise DataError(f"{folder} holds no *.block_N.json file; give the folder of one released data set.")
    missing = sorted(set(range(max(numbered) + 1)) - set(numbered))
    if missing:
        raise DataError(f"{folder} has block {max(numbered)} but no *.block_{missing[0]}.json; blocks count from 0.")
    if len(numbered) == 1:
        raise DataError(f"{folder} holds block 0 alone, and there is nothing to update on; add *.block_1.json.")
    return [numbered[block] for block in sorted(numbered)]


def _read_events(
    block_files: list[Path], item_number: dict[str, int], index_file: Path
) -> dict[str, list[tuple[int, int]]]:
    events: dict[str, list[tuple[int, int]]] = {}
    for block, path in enumerate(block_files):
        for user, entry in read_object(path).items():
            previous, current = _lists_of_user(path, user, entry)
            unknown = next((item for item in (*previous, *current) if item not in item_number), None)
            if unknown is not None:
                raise DataError(f"{path}: item {unknown!r} of user {user!r} has no code in {index_file.name}; add it.")
            earlier = [item for _, item in events.get(user, [])]
            if [item_number[item] for item in previous] != earlier:
                raise DataError(
                    f"{path}: previous_block of user {user!r} has {len(previous)} items that are not the "
                    f"{len(earlier)} of this user's earlier blocks; are the blocks in order?"
                )
            events.setdefault(user, []).extend((block, item_number[item]) for item in current)
    return events


def _lists_of_user(path: Path, user: str, entry: Any) -> tuple[list[str], list[str]]:
    lists = [entry.get(key) if isinstance(entry, dict) else None for key in ("previous_block", "current_block")]
    for key, items in zip(("previous_block", "current_block"), lists, strict=True):
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise DataError(f"{path}: user {user!r} needs {key!r}, a list of item ids as strings.")
    if not lists[1]:
        raise DataError(f"{path}: user {user!r} has an empty current_block; leave the user out of this block.")
    return lists[0], lists[1]  # type: ignore[return-value]
