"""Forgetting and transfer: by hand, and on streams whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peso.errors import DataError
from peso.evaluation.forgetting import transfer, transfer_pairs


def test_by_hand() -> None:
    results = np.array(
        [
            [0.1, 0.2, 0.3],  # the base
            [0.5, 0.4, 0.2],  # after block 1
            [0.6, 0.7, 0.5],  # after block 2
            [0.3, 0.5, 0.9],  # after block 3
        ]
    )
    found = transfer(results)
    assert found.forgetting == pytest.approx(((0.6 - 0.3) + (0.7 - 0.5)) / 2)
    assert found.backward == pytest.approx(((0.3 - 0.5) + (0.5 - 0.7)) / 2)
    assert found.forward == pytest.approx(((0.4 - 0.2) + (0.5 - 0.3)) / 2)


def test_a_model_that_never_changes_forgets_and_carries_nothing() -> None:
    found = transfer(np.tile(np.array([0.3, 0.1, 0.7, 0.2]), (5, 1)))
    assert (found.forgetting, found.backward, found.forward) == (0, 0, 0)


@given(st.integers(2, 6), st.integers(0, 1000))
def test_transfers_are_means_of_their_pairs_and_forgetting_bounds_backward(num_updates: int, seed: int) -> None:
    results = np.random.default_rng(seed).normal(size=(num_updates + 1, num_updates))
    found = transfer(results)
    for name, pairs in transfer_pairs(num_updates).items():
        gaps = [results[model, block - 1] - results[other, block - 1] for model, other, block in pairs]
        assert len(pairs) == num_updates - 1
        assert np.mean(gaps) == pytest.approx(getattr(found, name))
    assert found.forgetting >= -found.backward - 1e-12  # the best model is at least as good as the block's own


def test_what_cannot_be_summarised_is_refused() -> None:
    with pytest.raises(DataError, match="at least two updates"):
        transfer(np.ones((2, 1)))
    with pytest.raises(DataError, match="no result"):
        transfer(np.full((3, 2), np.nan))
