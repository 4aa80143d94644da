"""Matrix factorisation that ranks what a user took above what the user did not take."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from peso.baselines.base import Baseline
from peso.baselines.classical import require_library, taken_items
from peso.baselines.lists import completed
from peso.data.dataset import Dataset, IntArray
from peso.seeding import derive_seed


@dataclass(frozen=True)
class BprSettings:
    """What decides the lists; found on the validation targets of both releases.

    Attributes:
        factors: length of a user's and an item's vector.
        learning_rate: of the stochastic gradient.
        regularization: squared penalty on all vectors.
        epochs: passes over the known events.
        seed: of the first vectors and the sampled pairs.
    """

    factors: int = 128
    learning_rate: float = 0.05
    regularization: float = 0.01
    epochs: int = 100
    seed: int = 0


class Bpr(Baseline):
    """Bayesian personalised ranking, fitted anew after each block; unknown users get the popular items.

    An item that no known event names has no vector and is listed behind all others, as popularity has it.

    Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", arXiv 1205.2618.
    """

    name: ClassVar[str] = "bpr"
    settings: ClassVar[BprSettings] = BprSettings()

    def __init__(self, dataset: Dataset, model_block: int, previous: Self | None = None) -> None:
        """Factorises; see `Baseline`.

        Raises:
            InstallationError: the library `implicit` is not installed.
        """
        super().__init__(dataset, model_block, previous)
        require_library()
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        model = BayesianPersonalizedRanking(
            factors=self.settings.factors,
            learning_rate=self.settings.learning_rate,
            regularization=self.settings.regularization,
            iterations=self.settings.epochs,
            num_threads=1,  # with several, their order decides the result
            random_state=derive_seed(self.settings.seed, "bpr", model_block) % 2**32,
        )
        taken = taken_items(dataset, self.known_events)
        model.fit(taken, show_progress=False)
        self._user_factors, self._item_factors = model.user_factors, model.item_factors
        self._is_known_user = np.diff(taken.indptr) > 0
        self._known_items = np.unique(taken.indices)

    @classmethod
    def config(cls) -> dict[str, Any]:
        """See `Baseline.config`."""
        return asdict(cls.settings)

    def lists(self, targets: IntArray, k: int, allowed: IntArray) -> IntArray:
        """See `Baseline.lists`."""
        popular = self.popular(k, allowed)
        candidates = np.intersect1d(self._known_items, allowed)
        users, place = np.unique(self.dataset.event_user[targets], return_inverse=True)
        table = np.tile(completed(popular[:0], popular, k), (len(users), 1))
        for row in np.flatnonzero(self._is_known_user[users]):
            scores = self._item_factors[candidates] @ self._user_factors[users[row]]
            table[row] = completed(candidates[np.argsort(-scores, kind="stable")[:k]], popular, k)
        return table[place]
