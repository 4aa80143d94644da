"""Counts per block, by hand."""

import numpy as np

from peso.data.dataset import Dataset
from peso.data.statistics import block_statistics


def test_by_hand() -> None:
    # Block 0: x takes 0 1 2 3. Block 1: x takes 4 1 5 and y takes 5 0 4, so both test items are new, but 5 is also a
    # training target of y and counts as seen; 4 is a training target of x. Item 6 and user z have no events.
    dataset = Dataset(
        ["x", "y", "z"],
        [str(item) for item in range(7)],
        [""] * 7,
        np.array([0] * 7 + [1] * 3),
        np.array([0, 1, 2, 3, 4, 1, 5, 5, 0, 4]),
        np.array([0] * 4 + [1] * 6),
        2,
    )
    statistics = block_statistics(dataset)
    assert statistics.to_dicts() == [
        {
            "block": 0,
            "users": 1,
            "interactions": 4,
            "training_targets": 2,
            "test_targets": 1,
            "new_items": 4,
            "users_with_earlier_history": 0,
            "unseen_test_targets": 1,
        },
        {
            "block": 1,
            "users": 2,
            "interactions": 6,
            "training_targets": 2,
            "test_targets": 2,
            "new_items": 2,
            "users_with_earlier_history": 1,
            "unseen_test_targets": 0,
        },
    ]
