"""When items were first taken, in a table beside the data set; data without times have none."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from peso.data.dataset import IntArray
from peso.data.interactions import ITEM, TIME, Interactions
from peso.data.storage import read_table
from peso.errors import DataError, WorkspaceError
from peso.files import atomic_path

TIMES_FILE = "item_times.parquet"
_SCHEMA = {"item_id": pl.String(), "first_time": pl.Datetime("us", "UTC")}


def first_times(log: Interactions, item_ids: Sequence[str]) -> IntArray | None:
    """The time of each item's first event, whatever becomes of that event when the log is cleaned.

    Args:
        log: as read.
        item_ids: items to tell of, all of them in the log.

    Returns:
        Microseconds since 1970, int64 [N]; None where the log has no times.
    """
    if not log.has_times:
        return None
    first = log.events.group_by(ITEM).agg(pl.col(TIME).min())
    time_of = np.zeros(len(log.item_ids), dtype=np.int64)
    time_of[first[ITEM].to_numpy()] = first[TIME].to_numpy()
    place_of = {item: place for place, item in enumerate(log.item_ids)}
    return time_of[[place_of[item] for item in item_ids]]


def save_item_times(folder: Path, item_ids: Sequence[str], times: IntArray | None) -> None:
    """Writes `item_times.parquet`, unless there are no times.

    Args:
        folder: `W/data`.
        item_ids: of the data set, in its order.
        times: of `first_times`.
    """
    if times is None:
        return
    with atomic_path(folder / TIMES_FILE) as temporary:
        pl.DataFrame({"item_id": list(item_ids), "first_time": times}, schema=_SCHEMA).write_parquet(temporary)


def require_item_times(folder: Path) -> pl.DataFrame:
    """The table, if items can be told apart by their times.

    Args:
        folder: `W/data`.

    Returns:
        `item_id` (String) and `first_time` (Datetime in microseconds, UTC), of whatever items.

    Raises:
        WorkspaceError: the data came without times, or the table is damaged.
    """
    if not (folder / TIMES_FILE).exists():
        raise WorkspaceError(
            f"decoding.new_since asks when items were first taken, and {folder} holds no such times: import a log that "
            "has them (again, if it was imported before they were kept), or leave the date out."
        )
    return read_table(folder / TIMES_FILE, _SCHEMA)


def load_item_times(folder: Path, item_ids: Sequence[str]) -> IntArray:
    """Reads what `save_item_times` wrote.

    Args:
        folder: `W/data`.
        item_ids: of the data set, in its order.

    Returns:
        Microseconds since 1970, int64 [N].

    Raises:
        WorkspaceError: there is none, or it is damaged.
        DataError: it is of other items.
    """
    frame = require_item_times(folder)
    if frame["item_id"].to_list() != list(item_ids):
        raise DataError(
            f"the times in {folder / TIMES_FILE} are of other items than the data set's; import the data again."
        )
    return frame["first_time"].cast(pl.Int64).to_numpy()
