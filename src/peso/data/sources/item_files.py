"""What is written about items, in the layouts in which it comes."""

import ast
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from peso.data.item_texts import ItemText, tidy
from peso.data.new_items import read_new_items
from peso.data.sources.bad_rows import BadRow, Rejects
from peso.data.sources.json_lines import parse_object
from peso.data.sources.text_chunks import text_chunks

_NUM_CHARACTERS_KEPT = 1000
_TEXT_KEYS = ("features", "feature", "description")


def read_item_table(path: Path) -> dict[str, ItemText]:
    """A table of `item_id`, `title` and, if there is more, `text` and `categories`; see `read_new_items`."""
    items = read_new_items(path)
    return {
        item: ItemText(tidy(title), tidy(text), [tidy(name) for name in categories])
        for item, title, text, categories in zip(items.ids, items.titles, items.texts, items.categories, strict=True)
    }


def read_amazon_items(path: Path, wanted: Collection[str], rejects: Rejects) -> dict[str, ItemText]:
    """Reads item metadata of Amazon Reviews 2014, 2018 or 2023: an object per line.

    Args:
        path: JSON lines, perhaps compressed; the lines of 2014 are Python literals and are read as such.
        wanted: item ids; others are skipped.
        rejects: takes lines that are no item.

    Returns:
        By `parent_asin` or, where there is none, `asin`; of several lines of one item the first.

    Raises:
        DataError: the file is missing or damaged, or there are bad lines that must not be set aside.
    """
    items: dict[str, ItemText] = {}
    for chunk in text_chunks(path):
        bad: list[BadRow] = []
        for number, line in enumerate(chunk.data.split(b"\n"), start=chunk.first_line):
            if not line.strip():
                continue
            try:
                entry = _object(line)
                item = entry.get("parent_asin") or entry.get("asin")
                if not isinstance(item, str):
                    raise ValueError("has neither parent_asin nor asin")
            except ValueError as error:
                content = line[:_NUM_CHARACTERS_KEPT].decode("utf-8", errors="replace")
                bad.append(BadRow(path, number, str(error), content))
                continue
            if item in wanted and item not in items:
                items[item] = _amazon_item(entry)
        rejects.add(bad)
    rejects.stop_if_any()
    return items


def strings_in(value: Any) -> Iterator[str]:
    """Every string of a string, or of lists within lists, in order."""
    if isinstance(value, str):
        if value.startswith("[") and value.endswith("]"):  # a list that was written as text
            try:
                yield from strings_in(ast.literal_eval(value))
                return
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                pass
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from strings_in(part)


def _object(line: bytes) -> dict[str, Any]:
    try:
        return parse_object(line)
    except ValueError as error:
        if not line.lstrip().startswith(b"{'"):
            raise
        try:
            value = ast.literal_eval(line.decode("utf-8").strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise error from None
        if not isinstance(value, dict):
            raise error from None
        return value


def _amazon_item(entry: dict[str, Any]) -> ItemText:
    brand = entry.get("store") or entry.get("brand")
    parts = [brand] if isinstance(brand, str) else []
    for key in _TEXT_KEYS:
        parts += strings_in(entry.get(key))
    categories = [tidy(name) for name in strings_in(entry.get("categories") or entry.get("category"))]
    title = entry.get("title")
    return ItemText(
        tidy(title) if isinstance(title, str) else "",
        " ".join(filter(None, map(tidy, parts))),
        list(dict.fromkeys(filter(None, categories))),
    )
