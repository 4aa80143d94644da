"""What is written about items: titles, texts and categories, and the table that keeps them beside the data set."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from peso.data.storage import read_table
from peso.errors import DataError
from peso.files import atomic_path

TEXTS_FILE = "item_texts.parquet"
_SCHEMA = {"item_id": pl.String(), "text": pl.String(), "categories": pl.List(pl.String)}
_SPACE = re.compile(r"\s+")
_TAG = re.compile(r"<[a-zA-Z/!][^<>]{0,200}>")


@dataclass(frozen=True)
class ItemText:
    """One item.

    Attributes:
        title: empty where unknown.
        text: beyond the title; empty where there is none.
        categories: from broad to narrow.
    """

    title: str = ""
    text: str = ""
    categories: Sequence[str] = ()


def tidy(text: str) -> str:
    """Entities and tags of HTML resolved, every run of white space one blank, nothing that UTF-8 cannot hold."""
    text = _TAG.sub(" ", html.unescape(text)).encode("utf-8", errors="replace").decode("utf-8")
    return _SPACE.sub(" ", text.replace("\x00", " ")).strip()


def titles_of(item_ids: Iterable[str], texts: Mapping[str, ItemText]) -> list[str]:
    """Titles in item order, empty where unknown."""
    return [texts[item].title if item in texts else "" for item in item_ids]


def save_item_texts(folder: Path, item_ids: Sequence[str], texts: Mapping[str, ItemText]) -> None:
    """Writes `item_texts.parquet`, unless there is neither a text nor a category.

    Args:
        folder: `W/data`.
        item_ids: of the data set, in its order.
        texts: by item id; others than the data set's are ignored.
    """
    known = [texts.get(item, ItemText()) for item in item_ids]
    if not any(item.text or item.categories for item in known):
        return
    columns = {
        "item_id": list(item_ids),
        "text": [item.text for item in known],
        "categories": [list(item.categories) for item in known],
    }
    with atomic_path(folder / TEXTS_FILE) as temporary:
        pl.DataFrame(columns, schema=_SCHEMA).write_parquet(temporary)


def load_item_texts(folder: Path, item_ids: Sequence[str]) -> tuple[list[str], list[list[str]]] | None:
    """Reads what `save_item_texts` wrote.

    Args:
        folder: `W/data`.
        item_ids: of the data set, in its order.

    Returns:
        Texts and categories in item order; None where there are none.

    Raises:
        WorkspaceError: the table is damaged.
        DataError: it is of other items.
    """
    path = folder / TEXTS_FILE
    if not path.exists():
        return None
    frame = read_table(path, _SCHEMA)
    if frame["item_id"].to_list() != list(item_ids):
        raise DataError(f"the texts in {path} are of other items than the data set's; import the data again.")
    return frame["text"].to_list(), frame["categories"].to_list()
