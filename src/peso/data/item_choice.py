"""Which items lists may name, as an operator says at the moment: an allow-list, or what is out of stock."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peso.data.dataset import IntArray
from peso.data.small_tables import full_column, read_small_table
from peso.errors import DataError
from peso.files import hash_of_json

_ITEM = "item_id"


@dataclass(frozen=True)
class ItemChoice:
    """External ids; those that lists could not name anyway are passed over, since a shop knows more than a log.

    Attributes:
        only: nothing else is named; None for no such list.
        without: none of them is named.
    """

    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self.only is None and not self.without

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both lists, in whatever order they were read."""
        return hash_of_json([None if self.only is None else sorted(self.only), sorted(self.without)])

    def among(self, items: IntArray, ids: Sequence[str]) -> IntArray:
        """Those of some items that may be named.

        Args:
            items: int64 [n], numbers of items.
            ids: external id of every number.

        Returns:
            int64, in the order of `items`.

        Raises:
            DataError: there are none.
        """
        named = (ids[item] for item in items.tolist())
        is_kept = [(self.only is None or item in self.only) and item not in self.without for item in named]
        if not any(is_kept):
            raise DataError(
                "the lists of items to name and to leave out leave none of those that the model may name; check their "
                "ids."
            )
        return items[np.array(is_kept)]


EVERYTHING = ItemChoice()


def read_item_choice(only: Path | None, without: Path | None) -> ItemChoice:
    """Reads `.csv`, `.jsonl` or `.parquet` tables with the column `item_id`.

    Args:
        only: table of all that may be named; None for everything.
        without: table of what is never named; None for nothing.

    Raises:
        DataError: a table is not usable.
    """
    return ItemChoice(None if only is None else _ids(only), frozenset() if without is None else _ids(without))


def _ids(path: Path) -> frozenset[str]:
    return frozenset(full_column(path, read_small_table(path, "items", (_ITEM,), (_ITEM,)), _ITEM))
