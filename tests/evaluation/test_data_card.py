"""The data card: counts by hand, and the divergence's bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peso.data.dataset import Dataset
from peso.evaluation.data_card import block_cards, jensen_shannon


def test_by_hand() -> None:
    users = np.array([0, 0, 0, 1, 1, 2, 2])
    items = np.array([0, 1, 0, 1, 2, 0, 2])
    blocks = np.array([0, 1, 2, 0, 2, 1, 1])
    dataset = Dataset(["a", "b", "c"], ["x", "y", "z"], [""] * 3, users, items, blocks, 3)
    base, first, second = block_cards(dataset)
    assert (base.num_users, base.num_new, base.num_new_items, base.drift) == (2, 2, 2, None)
    # Block 1: a returns with y, c is new with x and z.
    assert (first.num_new, first.num_returning, first.num_dormant) == (1, 1, 0)
    assert first.num_new_items == 1
    assert first.share_of_new_items == pytest.approx(1 / 3)
    assert (first.median_events, first.longest) == (1.5, 2)
    # Block 2: a returns, b was away; x and z at one half each against thirds.
    assert (second.num_new, second.num_returning, second.num_dormant) == (0, 1, 1)
    assert second.drift == pytest.approx(jensen_shannon(np.full(3, 1 / 3), np.array([0.5, 0, 0.5])))


def test_bounds() -> None:
    assert jensen_shannon(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(1)
    assert jensen_shannon(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=6))
def test_symmetric_and_bounded(pairs: list[tuple[float, float]]) -> None:
    first, second = (np.array(side) + 1e-9 for side in zip(*pairs, strict=True))
    first, second = first / first.sum(), second / second.sum()
    value = jensen_shannon(first, second)
    assert 0 <= value <= 1 + 1e-12
    assert value == pytest.approx(jensen_shannon(second, first))
