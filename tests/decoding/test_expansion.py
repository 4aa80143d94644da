"""The step of the search against brute force over a dictionary of prefixes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from peso.decoding.expansion import Dead, best_children, dead_nodes
from peso.decoding.trie import Trie, build_trie
from worlds import tiny_codes

SIZES = st.sampled_from([(60,), (8, 8), (4, 5, 6), (70, 2), (300, 4), (2, 3, 2, 5), (1, 64, 1, 1), (9, 9, 9, 9)])


def prefixes(trie: Trie) -> list[list[tuple[int, ...]]]:
    """Per level, the prefix of each node."""
    levels: list[list[tuple[int, ...]]] = [[()]]
    for offsets, codes in zip(trie.offsets, trie.codes, strict=True):
        parents = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets.numpy()))
        levels.append([(*levels[-1][p], int(c)) for p, c in zip(parents, codes, strict=True)])
    return levels


def dead_prefixes(codes: np.ndarray, items: np.ndarray, excluded: np.ndarray, depth: int) -> set[tuple[int, ...]]:
    """Prefixes of some length none of whose items is left."""
    left = {tuple(codes[item, :depth].tolist()) for item in np.setdiff1d(items, excluded)}
    return {tuple(codes[item, :depth].tolist()) for item in items} - left


def padded_exclusions(generator: np.random.Generator, items: np.ndarray, num_users: int) -> Tensor:
    """Per user some items of the trie, some twice, some unknown, in any order, filled with -1."""
    table = np.full((num_users, 70), -1)
    for row in table:
        chosen = generator.permutation(items)[: generator.integers(0, len(items) + 1)]
        values = np.concatenate([chosen, chosen[:3], [10**9, 2**40]])
        row[: len(values)] = generator.permutation(values)
    return torch.from_numpy(table)


@given(sizes=SIZES, num_items=st.integers(1, 60), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_dead_nodes_are_the_prefixes_without_an_item_left(sizes: tuple[int, ...], num_items: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    codes, items = tiny_codes(60, sizes, seed), generator.permutation(60)[:num_items]
    trie = build_trie(codes, items)
    excluded = padded_exclusions(generator, items, 3)
    dead = dead_nodes(trie, excluded)
    names = prefixes(trie)
    for level in range(trie.num_levels):
        for user in range(3):
            nodes = [n for n in dead.nodes[level][user].tolist() if n < len(names[level + 1])]
            parents = dead.parents[level][user, : len(nodes)].tolist()
            found = {names[level + 1][node] for node in nodes}
            assert len(found) == len(nodes)
            assert found == dead_prefixes(codes, items, excluded[user].numpy(), level + 1)
            assert [names[level + 1][n][:-1] for n in nodes] == [names[level][p] for p in parents]


@given(
    sizes=SIZES,
    num_items=st.integers(1, 60),
    seed=st.integers(0, 1000),
    beam_width=st.integers(1, 30),
    options=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
@settings(max_examples=200, deadline=None)
def test_a_step_equals_brute_force(
    sizes: tuple[int, ...], num_items: int, seed: int, beam_width: int, options: tuple[bool, bool, bool, bool]
) -> None:
    excludes, renormalise, ties, spare_codes = options
    generator = np.random.default_rng(seed)
    codes, items = tiny_codes(60, sizes, seed), generator.permutation(60)[:num_items]
    trie = build_trie(codes, items)
    names = prefixes(trie)
    num_users, level = 3, int(generator.integers(trie.num_levels))
    num_beams = int(generator.integers(1, len(names[level]) + 1))
    nodes = torch.stack([torch.from_numpy(generator.permutation(len(names[level]))[:num_beams]) for _ in range(3)])
    scores = torch.from_numpy(generator.normal(size=nodes.shape)).float().round(decimals=0 if ties else 5)
    scores = scores.masked_fill(torch.from_numpy(generator.random(nodes.shape) < 0.3), -math.inf)
    shape = (num_users, num_beams, sizes[level] + 3 * spare_codes)
    log_probabilities = torch.from_numpy(generator.normal(size=shape)).float().round(decimals=0 if ties else 5)
    excluded = padded_exclusions(generator, items, num_users)
    dead = dead_nodes(trie, excluded) if excludes else None
    # Slots without a beam may hold any node.
    given_nodes = torch.where(torch.isinf(scores), nodes if seed % 2 else len(names[level]) - 1, nodes)
    step = best_children(trie, level, given_nodes, scores, log_probabilities, beam_width, dead, renormalise)
    assert 0 <= step.nodes.min() and step.nodes.max() < len(names[level + 1])  # also where there is no beam

    for user in range(num_users):
        forbidden = dead_prefixes(codes, items, excluded[user].numpy(), level + 1) if excludes else set()
        expected: dict[tuple[int, int], float] = {}
        for beam in range(num_beams):
            if torch.isinf(scores[user, beam]):
                continue
            prefix = names[level][nodes[user, beam]]
            its_codes = [name[-1] for name in names[level + 1] if name[:-1] == prefix]
            row = log_probabilities[user, beam]
            normaliser = float(row[its_codes].logsumexp(0)) if renormalise else 0.0
            for code in its_codes:
                if (*prefix, code) not in forbidden:
                    expected[beam, code] = float(scores[user, beam] + row[code]) - normaliser
        ranked = sorted(expected.values(), reverse=True)
        found = step.scores[user].isfinite()
        assert int(found.sum()) == min(beam_width, len(ranked))
        np.testing.assert_allclose(step.scores[user][found], ranked[:beam_width], atol=1e-4)
        left_out = ranked[beam_width] if len(ranked) > beam_width else -math.inf
        np.testing.assert_allclose(float(step.best_left_out[user]), left_out, atol=1e-4)
        chosen = list(zip(step.parent[user][found].tolist(), step.code[user][found].tolist(), strict=True))
        assert len(set(chosen)) == len(chosen)
        np.testing.assert_allclose([expected[pair] for pair in chosen], step.scores[user][found], atol=1e-4)
        for (beam, code), node in zip(chosen, step.nodes[user][found].tolist(), strict=True):
            assert names[level + 1][node] == (*names[level][nodes[user, beam]], code)


@given(sizes=SIZES, num_items=st.integers(1, 60), seed=st.integers(0, 1000), k=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_a_width_of_k_always_finds_k_allowed_items(sizes: tuple[int, ...], num_items: int, seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    codes, items = tiny_codes(60, sizes, seed), generator.permutation(60)[:num_items]
    trie = build_trie(codes, items)
    excluded = padded_exclusions(generator, items, 4)
    dead = dead_nodes(trie, excluded)
    nodes, scores = torch.zeros(4, 1, dtype=torch.int64), torch.zeros(4, 1)
    for level in range(trie.num_levels):
        log_probabilities = torch.from_numpy(generator.normal(size=(*nodes.shape, sizes[level]))).float()
        step = best_children(trie, level, nodes, scores, log_probabilities, k, dead)
        nodes, scores = step.nodes, step.scores
    for user in range(4):
        allowed = np.setdiff1d(items, excluded[user].numpy())
        found = trie.leaf_items[nodes[user][scores[user].isfinite()]].tolist()
        assert len(set(found)) == len(found) == min(k, len(allowed))
        assert set(found) <= set(allowed.tolist())


@pytest.mark.parametrize("sizes", [(8, 8), (9, 9, 9, 9)])
def test_no_exclusions_is_a_table_without_columns(sizes: tuple[int, ...]) -> None:
    trie = build_trie(tiny_codes(60, sizes), np.arange(60))
    dead = dead_nodes(trie, torch.zeros(2, 0, dtype=torch.int64))
    assert isinstance(dead, Dead)
    nodes, scores = torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1)
    log_probabilities = torch.randn(2, 1, sizes[0])
    plain = best_children(trie, 0, nodes, scores, log_probabilities, 5)
    assert torch.equal(best_children(trie, 0, nodes, scores, log_probabilities, 5, dead).scores, plain.scores)
