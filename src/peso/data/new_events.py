"""Events that happened after the data set was imported: a table of users and items, oldest first."""

from collections.abc import Iterator
from pathlib import Path

from peso.data.dataset import Dataset
from peso.data.small_tables import full_column, read_small_table
from peso.errors import DataError

_USER, _ITEM = "user_id", "item_id"


def read_new_events(path: Path, dataset: Dataset) -> list[tuple[str, int]]:
    """Reads a `.csv`, `.jsonl` or `.parquet` table with the columns `user_id` and `item_id`, a row per event in order.

    Args:
        path: of the table.
        dataset: knows the items; users may be new.

    Returns:
        External id of the user and number of the item, event after event.

    Raises:
        DataError: the table is not usable, or names an item that the data set does not hold.
    """
    return list(_events(path, dataset))


def _events(path: Path, dataset: Dataset) -> Iterator[tuple[str, int]]:
    frame = read_small_table(path, "events", (_USER, _ITEM), (_USER, _ITEM))
    numbers = {item: number for number, item in enumerate(dataset.item_ids)}
    users, items = (full_column(path, frame, name).to_list() for name in (_USER, _ITEM))
    for row, (user, item) in enumerate(zip(users, items, strict=True), start=1):
        if item not in numbers:
            raise DataError(f"{path}: row {row} names item {item!r}, which the data do not hold; import the log again.")
        yield user, numbers[item]
