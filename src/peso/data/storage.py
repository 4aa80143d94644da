"""A data set on disk: three Parquet tables and a JSON of facts that proves they are whole."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from peso.data.dataset import Dataset
from peso.errors import WorkspaceError
from peso.files import atomic_path, read_json, write_json

_FACTS = "dataset.json"


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


def load_dataset(folder: Path) -> Dataset:
    """Reads what `save_dataset` wrote.

    Raises:
        WorkspaceError: there is no data set, or it is not what was written.
    """
    if not (folder / _FACTS).exists():
        raise WorkspaceError(f"workspace {folder.parent} holds no data; run `peso import` or `peso simulate` first.")
    facts = read_json(folder / _FACTS, "facts of the data set")
    try:
        events, users, items = (pl.read_parquet(folder / f"{name}.parquet") for name in ("events", "users", "items"))
    except (FileNotFoundError, pl.exceptions.ComputeError) as error:
        raise WorkspaceError(f"the data set in {folder} cannot be read ({error}); import it again.") from None
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
    if dataset.fingerprint != facts["fingerprint"]:
        raise WorkspaceError(f"the data set in {folder} is damaged (wrong fingerprint); import it again.")
    return dataset
