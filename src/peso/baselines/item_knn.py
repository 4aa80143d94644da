"""Items that the same users took: nearest neighbours by cosine."""

import warnings
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from peso.baselines.base import Baseline
from peso.baselines.classical import require_library, taken_items
from peso.baselines.lists import completed
from peso.data.dataset import Dataset, IntArray
from peso.data.examples import history_starts


@dataclass(frozen=True)
class ItemKnnSettings:
    """What decides the lists; found on the validation targets of both releases.

    Attributes:
        num_neighbours: how many neighbours each item keeps.
        max_history: how many of the last items have a say.
    """

    num_neighbours: int = 400
    max_history: int = 20


class ItemKnn(Baseline):
    """An item's score is its summed cosine with the last items; then the block's popular items, and all time's.

    The cosine is that of the items' sets of users among the known events. An item is not its own neighbour, but may be
    one of the other items of a history.
    """

    name: ClassVar[str] = "item_knn"
    settings: ClassVar[ItemKnnSettings] = ItemKnnSettings()

    def __init__(self, dataset: Dataset, model_block: int, previous: Self | None = None) -> None:
        """Counts; see `Baseline`.

        Raises:
            InstallationError: the library `implicit` is not installed.
        """
        super().__init__(dataset, model_block, previous)
        require_library()
        from implicit.nearest_neighbours import CosineRecommender

        model = CosineRecommender(K=self.settings.num_neighbours + 1, num_threads=1)
        with warnings.catch_warnings():
            # It turns its own normalised matrix into another format, and warns that it did.
            warnings.filterwarnings("ignore", message="Method expects CSR input")
            model.fit(taken_items(dataset, self.known_events), show_progress=False)
        model.similarity.setdiag(0)
        model.similarity.eliminate_zeros()
        self._similarity = model.similarity

    @classmethod
    def config(cls) -> dict[str, Any]:
        """See `Baseline.config`."""
        return asdict(cls.settings)

    def lists(self, targets: IntArray, k: int, allowed: IntArray) -> IntArray:
        """See `Baseline.lists`."""
        popular, is_allowed = self.popular(k, allowed), self.is_allowed(allowed)
        starts = history_starts(self.dataset, targets, self.settings.max_history)
        rows = np.empty((len(targets), k), dtype=np.int64)
        for row, (start, target) in enumerate(zip(starts, targets, strict=True)):
            near = self._similarity[np.unique(self.dataset.event_item[start:target])]
            items, place = np.unique(near.indices, return_inverse=True)
            scores = np.bincount(place, near.data, len(items))
            items, scores = items[is_allowed[items]], scores[is_allowed[items]]
            rows[row] = completed(items[np.lexsort((items, -scores))], popular, k)
        return rows
