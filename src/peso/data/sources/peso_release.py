"""The layout that the paper's authors released: a JSON file per block and an index of semantic IDs.

`*.block_N.json` holds {user: {"previous_block": [item, ...], "current_block": [item, ...]}} in time order;
`*.index*.json` holds {item: ["<a_51>", "<b_218>", ...]}, the letter giving the level.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peso.data.dataset import Dataset, IntArray
from peso.errors import DataError

MIN_EVENTS_PER_USER = 2
_BLOCK_FILE = re.compile(r"\.block_([0-9]+)\.json$")
_CODE = re.compile(r"<([a-z])_([0-9]{1,6})>")


@dataclass(frozen=True, eq=False)
class ImportedData:
    """What was read.

    Attributes:
        dataset: the events; titles are empty, the release has none.
        source_codes: int64 [N, M], as released: items may share codes.
        level_sizes: highest code of each level plus one.
    """

    dataset: Dataset
    source_codes: IntArray
    level_sizes: tuple[int, ...]


def read_peso_release(folder: Path) -> ImportedData:
    """Reads and checks a release.

    Args:
        folder: holds `*.block_0.json`, `*.block_1.json`, ... and one `*.index*.json`.

    Raises:
        DataError: a file is missing, damaged or not of this layout; an item has no code; a user has a single event;
            or a user's `previous_block` is not what the earlier blocks say.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the *.block_N.json files.")
    block_files = _block_files(folder)
    index_files = sorted(folder.glob("*.index*.json"))
    if len(index_files) != 1:
        raise DataError(f"{folder} holds {len(index_files)} *.index*.json files; exactly one gives the semantic IDs.")
    codes_of_item = _read_index(index_files[0])
    item_ids = sorted(codes_of_item, key=_natural_order)
    item_number = {item: number for number, item in enumerate(item_ids)}
    events_of_user = _read_events(block_files, item_number, index_files[0])

    user_ids = sorted(events_of_user, key=_natural_order)
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
    source_codes = np.array([codes_of_item[item] for item in item_ids], dtype=np.int64)
    return ImportedData(dataset, source_codes, tuple((source_codes.max(axis=0) + 1).tolist()))


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
    return [numbered[block] for block in sorted(numbered)]


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object_without_repeats)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "is the file complete? Copy or download it again."
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; copy or download it again.") from None
    except _RepeatedKey as error:
        raise DataError(f"{path}: the key {error.args[0]!r} occurs twice in one object; merge or remove one.") from None
    except RecursionError:
        raise DataError(f"{path}: brackets nested too deep for this layout; copy or download it again.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions.") from None
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: expected a JSON object with at least one entry.")
    return content


class _RepeatedKey(Exception):
    """A JSON object names one key twice."""


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _RepeatedKey(next(key for key, count in counts.items() if count > 1))
    return content


def _read_index(path: Path) -> dict[str, list[int]]:
    index: dict[str, list[int]] = {}
    num_levels: int | None = None
    for item, tokens in _read_object(path).items():
        if not isinstance(tokens, list) or not tokens:
            raise DataError(f"{path}: item {item!r} needs a list of code tokens, not {tokens!r}.")
        codes = []
        for level, token in enumerate(tokens):
            match = _CODE.fullmatch(token) if isinstance(token, str) else None
            if match is None or ord(match.group(1)) - ord("a") != level:
                expected = f"<{chr(ord('a') + level)}_NUMBER> with a number below 1,000,000"
                raise DataError(f"{path}: item {item!r} has {token!r} at level {level + 1}; expected {expected}.")
            codes.append(int(match.group(2)))
        num_levels = num_levels or len(codes)
        if len(codes) != num_levels:
            raise DataError(f"{path}: item {item!r} has {len(codes)} codes, others have {num_levels}; use one length.")
        index[item] = codes
    return index


def _read_events(
    block_files: list[Path], item_number: dict[str, int], index_file: Path
) -> dict[str, list[tuple[int, int]]]:
    events: dict[str, list[tuple[int, int]]] = {}
    for block, path in enumerate(block_files):
        for user, entry in _read_object(path).items():
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


def _natural_order(identifier: str) -> tuple[int, str]:
    return (int(identifier), "") if identifier.isdecimal() else (2**63, identifier)
