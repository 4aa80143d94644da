"""Vectors that somebody else computed, looked up by item id."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from peso.errors import DataError
from peso.semantic_ids.encoders.base import ItemContents
from peso.semantic_ids.frozen import FrozenState, Vectors

ITEM_COLUMN = "item_id"


class PrecomputedEncoder:
    """A table from ids to vectors; zeros for an id that it does not hold."""

    kind = "precomputed"

    def __init__(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Keeps the table.

        Args:
            ids: distinct, length N.
            vectors: float32 [N, D].
        """
        self._ids, self._vectors = list(ids), vectors
        self._places = {item: place for place, item in enumerate(self._ids)}

    def encode(self, items: ItemContents) -> Vectors:
        """See `Encoder.encode`."""
        vectors = np.zeros((len(items), self._vectors.shape[1]), dtype=np.float32)
        for row, item in enumerate(items.ids):
            place = self._places.get(item)
            if place is not None:
                vectors[row] = self._vectors[place]
        return vectors

    def state(self) -> FrozenState:
        """See `Encoder.state`."""
        return FrozenState({"kind": self.kind, "ids": self._ids}, {"vectors": self._vectors})

    @classmethod
    def from_state(cls, state: FrozenState) -> "PrecomputedEncoder":
        """The encoder that gave this state."""
        return cls(state.facts["ids"], state.tensors["vectors"])


def read_vectors(path: Path, item_ids: Sequence[str]) -> PrecomputedEncoder:
    """Reads vectors of a workspace's items.

    Args:
        path: a `.npy` file of shape [N, D] whose rows are in the order of `W/data/items.parquet`, or a `.parquet` file
            with the column `item_id` and either one column of lists or D columns of numbers.
        item_ids: the workspace's items, length N.

    Raises:
        DataError: the file is missing or damaged, lacks items, or holds anything but finite numbers.
    """
    if path.suffix == ".npy":
        ids, vectors = list(item_ids), _read_npy(path)
        if len(vectors) != len(ids):
            raise DataError(
                f"{path} holds {len(vectors):,} vectors, the workspace {len(ids):,} items; give one row per item in "
                "the order of data/items.parquet, or a .parquet file with item ids."
            )
    elif path.suffix == ".parquet":
        ids, vectors = _read_parquet(path)
    else:
        raise DataError(f"{path} is neither .npy nor .parquet; save the vectors in one of these formats.")
    if len(set(ids)) != len(ids):
        raise DataError(f"{path} names an item twice; keep one vector per item.")
    missing = next(iter(sorted(set(item_ids) - set(ids))), None)
    if missing is not None:
        raise DataError(f"{path} has no vector of item {missing!r}; give every item of the workspace one.")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise DataError(f"{path}: the vector of item {ids[int(finite.argmin())]!r} is not finite; mend or remove it.")
    return PrecomputedEncoder(ids, vectors)


def _read_npy(path: Path) -> Vectors:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as .npy ({error}); write it with numpy.save.") from None
    return _as_vectors(path, vectors)


def _read_parquet(path: Path) -> tuple[list[str], Vectors]:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}); write it again.") from None
    if ITEM_COLUMN not in frame.columns or len(frame.columns) < 2:
        raise DataError(f"{path} has columns {frame.columns}; it needs {ITEM_COLUMN!r} and one or more of numbers.")
    ids = frame[ITEM_COLUMN].cast(pl.String).to_list()
    values = frame.drop(ITEM_COLUMN)
    if any(column.null_count() for column in frame):
        raise DataError(f"{path} has empty cells; fill them or remove the rows.")
    if len(values.columns) > 1:
        return ids, _as_vectors(path, values.to_numpy())
    column = values.to_series()
    rows = column.to_list() if column.dtype.is_nested() else [[value] for value in column.to_list()]
    try:
        return ids, _as_vectors(path, np.array(rows))
    except ValueError:
        raise DataError(f"{path}: column {column.name!r} holds lists of different lengths; use one length.") from None


def _as_vectors(path: Path, values: np.ndarray) -> Vectors:
    if values.ndim != 2 or values.shape[1] == 0 or values.dtype.kind not in "fiu":
        raise DataError(
            f"{path} holds {values.dtype} of shape {values.shape}; vectors are numbers of shape [items, dimensions]."
        )
    return np.ascontiguousarray(values, dtype=np.float32)
