"""Tries side by side."""

from dataclasses import fields

import torch

from peso.decoding.trie import Trie


def assert_equal(one: Trie, other: Trie) -> None:
    for field in fields(Trie):
        left, right = getattr(one, field.name), getattr(other, field.name)
        for a, b in zip(left, right, strict=True) if isinstance(left, tuple) else [(left, right)]:
            assert a == b if isinstance(a, int) else a.dtype == b.dtype and torch.equal(a, b), field.name
