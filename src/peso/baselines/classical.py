"""The door to `implicit`, the library of the classical rivals: an optional extra, and it counts in sparse matrices."""

import importlib.util
from typing import TYPE_CHECKING

import numpy as np

from peso.data.dataset import Dataset, IntArray
from peso.errors import InstallationError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def require_library() -> None:
    """Checks that `implicit` is installed.

    Raises:
        InstallationError: it is not.
    """
    if importlib.util.find_spec("implicit") is None:
        raise InstallationError(
            "the rivals item_knn and bpr need the library implicit, which is not installed; "
            "install it with: pip install 'peso-rec[bench]'."
        )


def taken_items(dataset: Dataset, events: IntArray) -> "csr_matrix":
    """Who took what among some events, float32 [U, N], ones where a user took an item at least once.

    Args:
        dataset: the events.
        events: event indices.
    """
    from scipy.sparse import csr_matrix

    users, items = dataset.event_user[events], dataset.event_item[events]
    ones = np.ones(len(events), dtype=np.float32)
    matrix = csr_matrix((ones, (users, items)), shape=(dataset.num_users, dataset.num_items))
    matrix.data[:] = 1.0  # a repeated pair was summed
    return matrix
