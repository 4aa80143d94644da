"""Items that were added to a workspace after its codes were made, in a table of their own.

The data set and its codes stay what they are, so that every base and run remains valid; added items stand behind the
catalogue, numbered on from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from peso.data.dataset import IntArray
from peso.data.storage import read_facts, read_table
from peso.errors import WorkspaceError
from peso.files import atomic_directory, hash_of_json, sha256_of, write_json
from peso.semantic_ids.catalogue import SemanticIds
from peso.semantic_ids.frozen import Vectors, load_frozen
from peso.semantic_ids.quantizers.base import Codebook
from peso.semantic_ids.quantizers.registry import restore_codebook

FOLDER = "added_items"
_TABLE, _FACTS, _CODEBOOK = "items.parquet", "added_items.json", "codebook"


@dataclass(frozen=True, eq=False)
class AddedItems:
    """Every list of length A.

    Attributes:
        ids: distinct, and none of the catalogue's.
        titles: empty where unknown.
        codes: int64 [A, M], distinct, and none of the catalogue's.
        vectors: float32 [A, D], those that the codes were made from; D is 0 if there are no items.
        codebook: the workspace's with a grown last level, once there were more items than codes; None before.
    """

    ids: Sequence[str]
    titles: Sequence[str]
    codes: IntArray
    vectors: Vectors
    codebook: Codebook | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all of it: a version of the extended catalogue."""
        return sha256_of(
            "\n".join(self.ids).encode(),
            "\n".join(self.titles).encode(),
            self.codes.astype("<i8").tobytes(),
            self.vectors.astype("<f4").tobytes(),
            *([] if self.codebook is None else [self.codebook.state().fingerprint.encode()]),
        )

    def save(self, workspace: Path, semantic_ids: SemanticIds) -> None:
        """Replaces what the workspace has of added items, in one step."""
        columns: dict[str, object] = {"item_id": list(self.ids), "title": list(self.titles)}
        columns |= {f"level_{level + 1}": self.codes[:, level] for level in range(semantic_ids.num_levels)}
        columns["vector"] = pl.Series(self.vectors.tolist(), dtype=pl.List(pl.Float32))
        with atomic_directory(workspace / FOLDER) as temporary:
            pl.DataFrame(columns).write_parquet(temporary / _TABLE)
            if self.codebook is not None:
                self.codebook.state().save(temporary, _CODEBOOK)
            facts = {"semantic_ids_fingerprint": semantic_ids.fingerprint, "fingerprint": self.fingerprint}
            write_json(temporary / _FACTS, facts)


def catalogue_fingerprint(dataset: str, semantic_ids: str, added: str | None) -> str:
    """The fingerprint of everything that lists of a workspace may name, from those of its parts.

    Args:
        dataset: of the data set.
        semantic_ids: of its codes.
        added: of the items that were added; None for none.
    """
    return hash_of_json([dataset, semantic_ids, added])


def stored_catalogue(workspace: Path) -> str:
    """What `catalogue_fingerprint` is of a workspace, as its parts' files say, without loading them.

    Raises:
        WorkspaceError: one of the files is missing or damaged.
    """
    data, fields = workspace / "data", {"fingerprint": str}
    dataset = read_facts(data / "dataset.json", "facts of the data set", fields)["fingerprint"]
    codes = read_facts(data / "semantic_ids" / "semantic_ids.json", "semantic IDs", fields)["fingerprint"]
    added = workspace / FOLDER / _FACTS
    items = read_facts(added, "facts of the added items", fields)["fingerprint"] if added.exists() else None
    return catalogue_fingerprint(dataset, codes, items)


def load_added_items(workspace: Path, semantic_ids: SemanticIds) -> AddedItems:
    """Reads the items that were added; none if there never were any.

    Args:
        workspace: with data.
        semantic_ids: the catalogue's.

    Raises:
        WorkspaceError: the table is damaged, or extends other codes than these.
    """
    folder = workspace / FOLDER
    if not folder.exists():
        no_codes = np.empty((0, semantic_ids.num_levels), dtype=np.int64)
        return AddedItems([], [], no_codes, np.empty((0, 0), dtype=np.float32))
    facts = read_facts(
        folder / _FACTS, "facts of the added items", {"semantic_ids_fingerprint": str, "fingerprint": str}
    )
    if facts["semantic_ids_fingerprint"] != semantic_ids.fingerprint:
        raise WorkspaceError(f"{folder} extends other codes than the workspace's; remove it and add the items again.")
    levels = [f"level_{level + 1}" for level in range(semantic_ids.num_levels)]
    columns: dict[str, type[pl.DataType] | pl.DataType] = {"item_id": pl.String, "title": pl.String}
    columns |= dict.fromkeys(levels, pl.Int64)
    frame = read_table(folder / _TABLE, columns | {"vector": pl.List(pl.Float32)})
    codes = frame.select(levels).to_numpy().astype(np.int64)
    vectors = np.array(frame["vector"].to_list(), dtype=np.float32)
    codebook = restore_codebook(load_frozen(folder, _CODEBOOK)) if (folder / f"{_CODEBOOK}.json").exists() else None
    added = AddedItems(frame["item_id"].to_list(), frame["title"].to_list(), codes, vectors, codebook)
    if added.fingerprint != facts["fingerprint"]:
        raise WorkspaceError(
            f"the added items in {folder} are damaged (wrong fingerprint); remove it and add them again."
        )
    return added
