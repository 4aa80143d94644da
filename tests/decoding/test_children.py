"""The three ways of reading children against the trie's own rows."""

import numpy as np
import pytest
import torch

from peso.decoding.children import Children, children_of
from peso.decoding.dense_level import dense_level
from peso.decoding.trie import Trie, build_trie


def test_tables_of_a_level_by_hand() -> None:
    """Node 0 has codes 1 and 3, node 1 has none, node 2 has code 0."""
    level = dense_level(torch.tensor([0, 2, 2, 3], dtype=torch.int32), torch.tensor([1, 3, 0], dtype=torch.uint8), 4)
    shut = -torch.inf
    expected = torch.tensor([[shut, 0.0, shut, 0.0], [shut, shut, shut, shut], [0.0, shut, shut, shut]])
    assert torch.equal(level.closed, expected)
    assert level.children.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0]
    assert not level.is_full


def wide_trie(num_codes: int) -> Trie:
    """Over 2^16 cells at level 1, whose nodes have up to all codes but mostly few; level 2 is sparse."""
    generator = np.random.default_rng(0)
    keys = [(node, node % num_codes, 0) for node in range(700)]
    keys += [(node, code, 10) for node in range(5, 700, 20) for code in range(node % 7, num_codes, 1 + node % 2)]
    keys += [(699, code, 20) for code in range(num_codes)]
    codes = np.unique(np.array(keys), axis=0)
    return build_trie(codes, generator.permutation(len(codes)))


def kind(children: Children) -> str:
    return type(children).__name__.strip("_")


@pytest.mark.parametrize("num_codes", [100, 256, 300])
def test_every_way_reads_the_children_that_the_trie_has(num_codes: int) -> None:
    trie = wide_trie(num_codes)
    kinds = []
    for level, (offsets, codes) in enumerate(zip(trie.offsets, trie.codes, strict=True)):
        generator = torch.Generator().manual_seed(level)
        nodes = torch.randint(len(offsets) - 1, (2, 40), generator=generator)
        log_probabilities = torch.randn(2, 40, num_codes + 600, generator=generator)
        children = children_of(trie, level, nodes)
        kinds.append(kind(children))
        scores = torch.randn(2, 40, generator=generator)
        found = children.read(log_probabilities, scores)
        width = found.shape[2]
        expected = torch.full_like(found, -torch.inf)
        slots, wanted = [], []
        for user, beam in np.ndindex(2, 40):
            for child in range(int(offsets[nodes[user, beam]]), int(offsets[nodes[user, beam] + 1])):
                code = int(codes[child])
                place = code if children.are_codes else child - int(offsets[nodes[user, beam]])
                expected[user, beam, place] = log_probabilities[user, beam, code] + scores[user, beam]
                if user == 0:
                    slots.append(beam * width + place)
                    wanted.append((code, child))
        assert torch.equal(found, expected)
        slot = torch.tensor(slots).expand(2, -1)
        chosen = children.choose(slot, slot // width, slot % width)
        assert [values[0].tolist() for values in chosen] == [list(column) for column in zip(*wanted, strict=True)]
    assert kinds == ["Dense", "Masked", "Rows"]


def test_tables_are_small_and_not_part_of_the_trie() -> None:
    trie = wide_trie(256)
    before = trie.num_bytes
    assert [level is not None for level in trie.dense_levels] == [True, False, False]
    assert trie.num_bytes == before
    all_pairs = build_trie(np.stack(np.divmod(np.arange(1 << 16), 256), axis=1), np.arange(1 << 16))
    table = all_pairs.dense_levels[1]
    assert table is not None and torch.equal(table.children, torch.arange(1 << 16))
    assert table.closed.shape == (256, 256) and not table.closed.any() and table.is_full
