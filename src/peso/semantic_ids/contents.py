"""What encoders read of a workspace's items, and what its report compares them by."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peso.data.dataset import Dataset
from peso.data.item_texts import load_item_texts
from peso.semantic_ids.encoders.base import ItemContents


@dataclass(frozen=True, eq=False)
class WorkspaceItems:
    """Everything written about the items.

    Attributes:
        contents: for encoders; an item's text is its title and whatever else there is.
        categories: one per item, empty where unknown; None where no item has any.
    """

    contents: ItemContents
    categories: list[str] | None


def read_workspace_items(data_folder: Path, dataset: Dataset) -> WorkspaceItems:
    """Reads titles and, where `item_texts.parquet` is there, texts and categories.

    Args:
        data_folder: `W/data`.
        dataset: the workspace's.

    Raises:
        WorkspaceError: the table of texts is damaged.
        DataError: it is of other items.
    """
    written = load_item_texts(data_folder, dataset.item_ids)
    if written is None:
        return WorkspaceItems(ItemContents(dataset.item_ids, dataset.titles), None)
    texts, categories = written
    full = [full_text(title, text) for title, text in zip(dataset.titles, texts, strict=True)]
    return WorkspaceItems(ItemContents(dataset.item_ids, full), telling_categories(categories))


def full_text(title: str, text: str) -> str:
    """Title and text, one under the other, the title not twice."""
    title, text = title.strip(), text.strip()
    return text if text.startswith(title) else f"{title}\n{text}".strip()


def telling_categories(paths: Sequence[Sequence[str]]) -> list[str] | None:
    """Of every item's path of categories, broad to narrow, the first entry at which items differ.

    Args:
        paths: per item, possibly empty.

    Returns:
        One category per item, empty where the path is too short; None where no two items differ.
    """
    for depth in range(max(map(len, paths), default=0)):
        found = [path[depth] if depth < len(path) else "" for path in paths]
        if len(set(found) - {""}) > 1:
            return found
    return None
