"""The semantic IDs of a catalogue: every item's codes, unique, with where they came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from peso.data.dataset import Dataset, IntArray
from peso.data.storage import read_facts, read_table
from peso.errors import DataError, WorkspaceError
from peso.files import atomic_path, sha256_of, write_json
from peso.semantic_ids.assignment import make_unique


def code_token(level: int, code: int) -> str:
    """The token of one code, such as `<b_7>` for level 1, code 7 (levels beyond `z` are written `<27_7>`)."""
    letter = chr(ord("a") + level) if level < 26 else str(level + 1)
    return f"<{letter}_{code}>"


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """Codes of every item.

    Attributes:
        codes: int64 [N, M], all rows distinct: what the model reads and writes.
        source_codes: int64 [N, M], as the quantizer or the release gave them; rows may repeat.
        level_sizes: codes per level, length M.
    """

    codes: IntArray
    source_codes: IntArray
    level_sizes: tuple[int, ...]

    @property
    def num_items(self) -> int:
        """Items N."""
        return len(self.codes)

    @property
    def num_levels(self) -> int:
        """Codes per item M."""
        return len(self.level_sizes)

    @property
    def num_moved(self) -> int:
        """Items whose unique code differs from the given one."""
        return int((self.codes != self.source_codes).any(axis=1).sum())

    def text(self, item: int) -> str:
        """An item's codes as tokens, such as `<a_51><b_218>`."""
        return "".join(code_token(level, int(code)) for level, code in enumerate(self.codes[item]))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over codes and level sizes."""
        return sha256_of(
            repr(self.level_sizes).encode(),
            self.codes.astype("<i8").tobytes(),
            self.source_codes.astype("<i8").tobytes(),
        )

    def save(self, folder: Path, item_ids: Sequence[str]) -> None:
        """Writes `codes.parquet` and `semantic_ids.json`.

        Args:
            folder: created when missing.
            item_ids: external ids in item order, length N.
        """
        folder.mkdir(parents=True, exist_ok=True)
        columns: dict[str, object] = {"item_id": list(item_ids)}
        for prefix, table in (("level", self.codes), ("source_level", self.source_codes)):
            columns |= {f"{prefix}_{level + 1}": table[:, level] for level in range(self.num_levels)}
        with atomic_path(folder / "codes.parquet") as temporary:
            pl.DataFrame(columns).write_parquet(temporary)
        write_json(
            folder / "semantic_ids.json", {"level_sizes": list(self.level_sizes), "fingerprint": self.fingerprint}
        )


def build_semantic_ids(dataset: Dataset, source_codes: IntArray, level_sizes: Sequence[int]) -> SemanticIds:
    """Unique codes for a data set: of the items that share a code, the one that occurs in the earliest block keeps it.

    Args:
        dataset: gives the block in which each item occurs first; ties go to the lower item number.
        source_codes: int64 [N, M], rows may repeat.
        level_sizes: codes per level, length M.

    Raises:
        DataError: the codes do not fit the items or the levels, or there are more items than codes.
    """
    if source_codes.shape != (dataset.num_items, len(level_sizes)):
        raise DataError(
            f"codes of shape {source_codes.shape} for {dataset.num_items} items and {len(level_sizes)} levels; "
            "give every item one code per level."
        )
    priority = np.lexsort((np.arange(dataset.num_items), dataset.item_first_block))
    return SemanticIds(make_unique(source_codes, level_sizes, priority), source_codes, tuple(level_sizes))


def load_semantic_ids(folder: Path, item_ids: Sequence[str]) -> SemanticIds:
    """Reads what `SemanticIds.save` wrote.

    Args:
        folder: where.
        item_ids: the data set's items, which must be the same in the same order.

    Raises:
        WorkspaceError: missing or damaged.
        DataError: the codes are of other items.
    """
    if not folder.exists():
        raise WorkspaceError(f"{folder} does not exist: items have no codes yet; run `peso items encode` first.")
    facts = read_facts(folder / "semantic_ids.json", "semantic IDs", {"level_sizes": list, "fingerprint": str})
    levels = range(1, len(facts["level_sizes"]) + 1)
    columns = [f"{prefix}_{level}" for prefix in ("level", "source_level") for level in levels]
    frame = read_table(folder / "codes.parquet", {"item_id": pl.String} | dict.fromkeys(columns, pl.Int64))
    if frame["item_id"].to_list() != list(item_ids):
        raise DataError(f"the semantic IDs in {folder} are of other items than the data set's; import the data again.")
    codes, source_codes = np.split(frame.select(columns).to_numpy().astype(np.int64), 2, axis=1)
    loaded = SemanticIds(codes, source_codes, tuple(facts["level_sizes"]))
    if loaded.fingerprint != facts["fingerprint"]:
        raise WorkspaceError(f"semantic IDs in {folder} are damaged (wrong fingerprint); import the data again.")
    return loaded
