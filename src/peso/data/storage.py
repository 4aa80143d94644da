"""A data set on disk: three Parquet tables and a JSON of facts that proves they are whole."""

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from peso.data.dataset import Dataset
from peso.errors import DataError, WorkspaceError
from peso.files import atomic_path, read_json, write_json

Kind: TypeAlias = "type | UnionType | Mapping[str, Kind] | list[Kind]"
"""Of a JSON value: a Python type (float takes whole numbers too), the fields of an object, or [the kind of entries]."""

_FACTS = "dataset.json"
_MISSING = object()
_TABLES: dict[str, dict[str, type[pl.DataType]]] = {
    "events": {"user": pl.Int64, "item": pl.Int64, "block": pl.Int64},
    "users": {"user_id": pl.String},
    "items": {"item_id": pl.String, "title": pl.String},
}


def save_dataset(dataset: Dataset, folder: Path) -> None:
    """Writes `events.parquet`, `users.parquet`, `items.parquet` and, last, `dataset.json`.

    Args:
        dataset: what to write.
        folder: created when missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, dict[str, Any]] = {
        "events": {"user": dataset.event_user, "item": dataset.event_item, "block": dataset.event_block},
        "users": {"user_id": list(dataset.user_ids)},
        "items": {"item_id": list(dataset.item_ids), "title": list(dataset.titles)},
    }
    for name, columns in tables.items():
        with atomic_path(folder / f"{name}.parquet") as temporary:
            pl.DataFrame(columns).write_parquet(temporary)
    facts = {
        "source": dataset.source,
        "num_blocks": dataset.num_blocks,
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
        "num_events": dataset.num_events,
        "fingerprint": dataset.fingerprint,
    }
    write_json(folder / _FACTS, facts)


def require_dataset(folder: Path) -> None:
    """Checks that something was saved, and reads nothing.

    Raises:
        WorkspaceError: there is no data set.
    """
    if not (folder / _FACTS).exists():
        raise WorkspaceError(f"workspace {folder.parent} holds no data; run `peso import` or `peso simulate` first.")


def load_dataset(folder: Path) -> Dataset:
    """Reads what `save_dataset` wrote.

    Raises:
        WorkspaceError: there is no data set, or it is not what was written.
    """
    require_dataset(folder)
    facts = read_facts(folder / _FACTS, "facts of the data set", {"num_blocks": int, "source": str, "fingerprint": str})
    events, users, items = (read_table(folder / f"{name}.parquet", schema) for name, schema in _TABLES.items())
    damaged = WorkspaceError(f"the data set in {folder} is damaged (wrong fingerprint); import it again.")
    try:
        dataset = Dataset(
            users["user_id"].to_list(),
            items["item_id"].to_list(),
            items["title"].to_list(),
            events["user"].to_numpy().astype(np.int64),
            events["item"].to_numpy().astype(np.int64),
            events["block"].to_numpy().astype(np.int64),
            facts["num_blocks"],
            facts["source"],
        )
    except DataError:
        raise damaged from None
    if dataset.fingerprint != facts["fingerprint"]:
        raise damaged
    return dataset


def read_facts(
    path: Path, what: str, fields: Mapping[str, Kind], cure: str = "import the data again"
) -> dict[str, Any]:
    """Reads a JSON object that peso wrote.

    Args:
        path: the file.
        what: what the file is, for the error message.
        fields: the keys that must be there, with the kind of each value; one whose name ends in "?" may be missing.
        cure: what to do about a damaged one.

    Raises:
        WorkspaceError: the file is missing, is not JSON, or lacks a field.
    """
    facts = read_json(path, what)
    wrong = _wrong_field(facts, fields, "")
    if wrong is not None:
        raise WorkspaceError(f"{what}: {path} has no valid {wrong!r}; it is damaged, {cure}.")
    return dict(facts)


def _wrong_field(value: object, kind: Kind, place: str) -> str | None:
    """The first place where a value is not of its kind, such as `epochs.0.stage`; None where all of it is."""
    if isinstance(kind, Mapping):
        held = value if isinstance(value, dict) else {}
        for name, inner in kind.items():
            key = name.removesuffix("?")
            if key == name or key in held:
                wrong = _wrong_field(held.get(key, _MISSING), inner, f"{place}.{key}" if place else key)
                if wrong is not None:
                    return wrong
        return None if isinstance(value, dict) else place or next(iter(kind)).removesuffix("?")
    if isinstance(kind, list):
        if not isinstance(value, list):
            return place
        found = (_wrong_field(entry, kind[0], f"{place}.{number}") for number, entry in enumerate(value))
        return next((wrong for wrong in found if wrong is not None), None)
    is_there = value is not _MISSING and isinstance(value, float | int if kind is float else kind)
    return None if is_there else place


def read_table(path: Path, schema: Mapping[str, type[pl.DataType] | pl.DataType]) -> pl.DataFrame:
    """Reads a Parquet table that peso wrote.

    Args:
        path: the file.
        schema: its columns with their types; none may hold nulls.

    Raises:
        WorkspaceError: the file is missing, damaged, or has other columns.
    """
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise WorkspaceError(f"table {path} cannot be read ({error}); import the data again.") from None
    if dict(frame.schema) != dict(schema) or any(column.null_count() for column in frame):
        raise WorkspaceError(
            f"table {path} is damaged: its columns {frame.schema.names()} should be {list(schema)}, each of its type "
            "and without gaps; import the data again."
        )
    return frame
