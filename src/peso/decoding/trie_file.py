"""Tries on disk: read from a table of codes in Parquet, kept in one safetensors file that is mapped, not copied.

The table has a column `item` and one column per level, `level_1` to `level_M`, all integers, in any order of rows.
"""

import json
from pathlib import Path

import polars as pl
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from peso.decoding.trie import Trie, build_trie_from_columns
from peso.errors import DataError, WorkspaceError
from peso.files import atomic_path

ITEM_COLUMN = "item"
_FORMAT = "peso trie 1"
_PER_LEVEL = ("offsets", "codes", "bitmasks")
_PER_ITEM = ("leaf_items", "known_items", "known_leaves")


def level_column(level: int) -> str:
    """The column of a level's codes; levels count from 0 here and from 1 in the table."""
    return f"level_{level + 1}"


def build_trie_from_parquet(path: Path, num_levels: int) -> Trie:
    """The trie of a table of items and their codes.

    Args:
        path: a Parquet file with the integer columns `item` and `level_1` to `level_M`; others are ignored.
        num_levels: codes per item M.

    Raises:
        DataError: the file is missing or no Parquet; a column is missing, holds no integers, nulls or negative
            numbers; an item is listed twice, two items share all their codes, or there is no item.
    """
    names = [ITEM_COLUMN, *(level_column(level) for level in range(num_levels))]
    try:
        schema = pl.read_parquet_schema(path)
        for name in names:
            if name not in schema or not schema[name].is_integer():
                found = f"holds {schema[name]}" if name in schema else "is missing"
                raise DataError(f"{path}: column {name!r} {found}; give every item an integer there.")
        table = pl.read_parquet(path, columns=names)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give a Parquet file of items and codes.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}); write it again.") from None
    for name in names:
        if table[name].null_count():
            raise DataError(f"{path}: column {name!r} has {table[name].null_count()} nulls; give every item a number.")
        least = table[name].min()
        if isinstance(least, int) and least < 0:
            raise DataError(f"{path}: column {name!r} holds {least}; items and codes count from 0.")
    try:
        return build_trie_from_columns([table[name].to_numpy() for name in names[1:]], table[ITEM_COLUMN].to_numpy())
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def save_trie(trie: Trie, path: Path) -> None:
    """Writes a trie as one safetensors file, atomically.

    Args:
        trie: what to write.
        path: the file; an existing one is replaced.
    """
    arrays: dict[str, Tensor] = {name: getattr(trie, name) for name in _PER_ITEM}
    for name in _PER_LEVEL:
        arrays |= {f"{name}.{level}": array for level, array in enumerate(getattr(trie, name))}
    facts = {"max_children": trie.max_children, "num_codes": trie.num_codes}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, {"format": _FORMAT, "facts": json.dumps(facts)})


def load_trie(path: Path) -> Trie:
    """Maps a trie that `save_trie` wrote into memory; pages are read when a search first touches them.

    The header, the lengths and the ends of the rows are checked; the contents are not summed, as that would read them.

    Raises:
        WorkspaceError: the file is missing, damaged, or holds something else.
    """
    damaged = f"{path} is not a whole trie file"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise WorkspaceError(f"{damaged} (its format is not {_FORMAT!r}); build the trie again.")
            facts = json.loads(metadata["facts"])
            max_children, num_codes = tuple(facts["max_children"]), tuple(facts["num_codes"])
            per_level = [
                tuple(file.get_tensor(f"{name}.{level}") for level in range(len(num_codes))) for name in _PER_LEVEL
            ]
            per_item = [file.get_tensor(name) for name in _PER_ITEM]
    except FileNotFoundError:
        raise WorkspaceError(f"{path} does not exist; build and save the trie first.") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(f"{damaged} ({error}); build the trie again.") from None
    offsets, codes, bitmasks = per_level
    num_nodes = [1, *map(len, codes)]
    fits = (
        len({len(array) for array in (codes[-1], *per_item)}) == 1
        and len(max_children) == len(num_codes)
        and all(
            rows.shape == (num_nodes[level] + 1,)
            and int(rows[-1]) == num_nodes[level + 1]
            and bitmasks[level].shape in ((0, 0), (num_nodes[level], -(-num_codes[level] // 8)))
            for level, rows in enumerate(offsets)
        )
    )
    if not fits:
        raise WorkspaceError(f"{damaged} (its arrays do not fit together); build the trie again.")
    return Trie(offsets, codes, bitmasks, per_item[0], per_item[1], per_item[2], max_children, num_codes)
