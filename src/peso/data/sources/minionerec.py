"""The layout of MiniOneRec's release: item texts, an index of semantic IDs, and a table of targets per period.

`*.item.json` holds {item: {"title", "description", "brand", "categories"}}, `*.index.json` {item: ["<a_1>", ...]};
`*.train.csv`, `*.valid.csv` and `*.test.csv` have a row per target, with the up to ten items before it. There are no
times; a user's rows stand in order, so that each row's history ends in the targets of the rows before it.
"""

import ast
import csv
from pathlib import Path

import numpy as np

from peso.data.dataset import Dataset
from peso.data.imported import ImportedData
from peso.data.item_texts import ItemText, tidy, titles_of
from peso.data.sources.code_index import code_table, natural_order, read_code_index
from peso.data.sources.files import file_record
from peso.data.sources.item_files import strings_in
from peso.data.sources.json_object import read_object
from peso.errors import DataError

_PERIODS = ("train", "valid", "test")
_COLUMNS = ("user_id", "history_item_id", "item_id")

Events = dict[str, list[tuple[int, str]]]


def read_minionerec(folder: Path) -> ImportedData:
    """Reads a release: histories and `train` are block 0, `valid` is block 1, `test` block 2.

    Args:
        folder: holds one `*.item.json`, one `*.index.json`, and the tables; `train` may be absent.

    Raises:
        DataError: a file is missing, damaged or not of this layout, the tables hold no row, or a row does not go on
            where its user's last one ended.
    """
    items_file, index_file = (_only(folder, f"*.{name}.json") for name in ("item", "index"))
    tables = [_only(folder, f"*.{period}.csv") for period in _PERIODS if period != "train" or _has_train(folder)]
    index = read_code_index(index_file)
    texts = {item: _item_text(items_file, item, entry) for item, entry in read_object(items_file).items()}
    untold = next((item for item in index if item not in texts), None)
    if untold is not None:
        raise DataError(f"{items_file} has no item {untold!r}, which {index_file.name} has; copy the release again.")
    item_ids = sorted(index, key=natural_order)
    number = {item: place for place, item in enumerate(item_ids)}
    events: Events = {}
    for path in tables:
        _read_rows(path, 0 if path.name.endswith(".train.csv") else 1 + tables[-2:].index(path), events, number)
    if not events:
        raise DataError(f"{folder}: no table holds a row under its header; copy the release again.")
    user_ids = sorted(events, key=natural_order)
    flat = [(user, block, number[item]) for user, name in enumerate(user_ids) for block, item in events[name]]
    users, blocks, items = np.array(flat, dtype=np.int64).T.copy()
    name = items_file.name.removesuffix(".item.json").replace("_", " ")
    dataset = Dataset(
        user_ids, item_ids, titles_of(item_ids, texts), users, items, blocks, 3, f"MiniOneRec release {name}"
    )
    record = {"files": [file_record(path) for path in (items_file, index_file, *tables)]}
    return ImportedData(dataset, *code_table(index, item_ids), texts=texts, record=record)


def _has_train(folder: Path) -> bool:
    return any(folder.glob("*.train.csv"))


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(f"{folder} holds {len(found)} {pattern} files, and one is needed; give the release's folder.")
    return found[0]


def _item_text(path: Path, item: str, entry: object) -> ItemText:
    if not isinstance(entry, dict) or not isinstance(entry.get("title"), str):
        raise DataError(f"{path}: item {item!r} has no title; copy the release again.")
    text = " ".join(filter(None, map(tidy, strings_in([entry.get("brand"), entry.get("description")]))))
    categories = [tidy(name) for name in strings_in(entry.get("categories")) if name]
    return ItemText(tidy(entry["title"]), text, categories)


def _read_rows(path: Path, block: int, events: Events, known: dict[str, int]) -> None:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            missing = next((name for name in _COLUMNS if name not in (rows.fieldnames or ())), None)
            if missing is not None:
                raise DataError(f"{path} has no column {missing!r}; copy the release again.")
            for row in rows:
                _add_row(f"{path} line {rows.line_num}", row, block, events, known)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); copy the release again.") from None


def _add_row(place: str, row: dict[str, str | None], block: int, events: Events, known: dict[str, int]) -> None:
    user, item = row["user_id"], row["item_id"]
    try:
        history = [str(entry) for entry in ast.literal_eval(row["history_item_id"] or "")]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise DataError(f"{place}: history_item_id is not a list of items; copy the release again.") from None
    if not user or not item:
        raise DataError(f"{place}: a target needs user_id and item_id; copy the release again.")
    unknown = next((entry for entry in (*history, item) if entry not in known), None)
    if unknown is not None:
        raise DataError(f"{place}: item {unknown!r} has no semantic ID in the index; copy the release again.")
    sequence = events.setdefault(user, [(0, entry) for entry in history])
    if history and [entry for _, entry in sequence[-len(history) :]] != history:
        raise DataError(f"{place}: the history of user {user!r} does not end where the rows before it ended.")
    sequence.append((block, item))
