"""The classical rivals, in the order of their results."""

from peso.baselines.base import Baseline
from peso.baselines.bpr import Bpr
from peso.baselines.classical import require_library
from peso.baselines.item_knn import ItemKnn
from peso.rivals.sasrec import SasRecRetrained, SasRecUpdated

CLASSICAL: tuple[type[Baseline], ...] = (ItemKnn, Bpr, SasRecUpdated, SasRecRetrained)


def classical_rivals() -> tuple[type[Baseline], ...]:
    """The rivals of `peso baselines --classical`.

    Raises:
        InstallationError: the library that two of them need is not installed; better to say so before the first trains.
    """
    require_library()
    return CLASSICAL
