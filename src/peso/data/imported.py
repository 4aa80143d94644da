"""What importing gives: a data set, what came with it, and an account of how it was made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peso.data.dataset import Dataset, IntArray
from peso.data.item_texts import ItemText


@dataclass(frozen=True, eq=False)
class ImportedData:
    """What was read.

    Attributes:
        dataset: the events.
        source_codes: int64 [N, M], as released: items may share codes; None where the data came without.
        level_sizes: codes per level, length M; empty without codes.
        texts: of items, by id, where there are any beyond the titles.
        first_times: when each item was first taken, microseconds since 1970, int64 [N]; None where nobody knows.
        record: JSON values: files, rows, what cleaning left, where blocks begin; empty where nothing was decided.
    """

    dataset: Dataset
    source_codes: IntArray | None = None
    level_sizes: tuple[int, ...] = ()
    texts: Mapping[str, ItemText] = field(default_factory=dict)
    first_times: IntArray | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
