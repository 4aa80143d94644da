"""The trie's share of decoding: how it is made of what was measured."""

import pytest

from benchmarks.constraint import overhead_of
from benchmarks.harness import Comparison


def test_overhead_is_the_median_of_each_turn_s_own_share() -> None:
    """Shares 0.1, 0.05 and 0.06; the sides' medians would give (6 - 3) / 40."""
    sides = {"with_trie": (3.0, 6.0, 9.0), "without_trie": (1.0, 4.0, 3.0), "decode": (20.0, 40.0, 100.0)}
    assert overhead_of(Comparison(sides)) == pytest.approx(0.06)
