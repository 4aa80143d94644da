"""Bit masks of children, by hand and against Python's own integers."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from peso.decoding.bit_masks import bits_below, closed_of, counted_in_steps, mask_rows, num_set_bits

CPU = torch.device("cpu")
WORDS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8)


def test_rows_of_a_level_by_hand() -> None:
    """Nine bytes are two words; node 0 has codes 1, 63, 64 and 70, node 1 has none, node 2 has code 2."""
    bitmask = torch.zeros(3, 9, dtype=torch.uint8)
    bitmask[0, 0], bitmask[0, 7], bitmask[0, 8] = 0b10, 0b1000_0000, 0b100_0001
    bitmask[2, 0] = 0b100
    rows = mask_rows(bitmask, torch.tensor([0, 4, 4, 5], dtype=torch.int32))
    assert rows.tolist() == [[[2 - 2**63, 0], [0b100_0001, 2]], [[0, 4], [0, 4]], [[4, 4], [0, 5]]]


@given(values=WORDS)
def test_bits_are_counted_as_python_does(values: list[int]) -> None:
    expected = [(value % 2**64).bit_count() for value in values]
    assert num_set_bits(torch.tensor(values)).tolist() == expected
    assert counted_in_steps(torch.tensor(values)).tolist() == expected


@given(values=WORDS)
def test_closed_codes_are_those_without_a_bit(values: list[int]) -> None:
    is_open = [bool(value % 2**64 >> bit & 1) for value in values for bit in range(64)]
    closed = closed_of(torch.tensor(values)[None])
    np.testing.assert_array_equal(closed, np.where(is_open, 0.0, -np.inf)[None])


def test_bits_below_each_bit() -> None:
    assert [value % 2**64 for value in bits_below(CPU).tolist()] == [2**bit - 1 for bit in range(64)]
