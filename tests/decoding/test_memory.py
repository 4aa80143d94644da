"""Model and memory together: against the formula on every item, and inside a search."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from peso.config import DecodingConfig
from peso.decoding.memory import Memory, remembered_nodes
from peso.decoding.recommend import Recommender, RememberedItems
from peso.decoding.trie import build_trie
from peso.lm.sequences import SequenceBuilder
from peso.lm.vocabulary import Vocabulary
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset

ALL = np.arange(40)
HISTORIES = [[3, 7, 1], [20], [5, 5, 8, 30, 2, 11]]
KNOWN = RememberedItems(
    [np.array([2, 9, 17, 31]), np.array([], dtype=np.int64), np.array([0, 39])],
    [np.array([3.0, 1.0, 0.5, 2.0]), np.array([]), np.array([0.25, 40.0])],
    strength=5.0,
)


def decoded(
    width: int, k: int, memory: RememberedItems | None, excluded: list[NDArray[np.int64]] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    model, tokenizer = tiny_backbone()
    made: tuple[SequenceBuilder, Vocabulary] = tiny_builder(tokenizer, tiny_dataset(), tiny_codes(), "sid")
    builder, vocabulary = made
    recommender = Recommender(model, vocabulary, DecodingConfig(num_recommendations=k, beam_width=width))
    prompts = [builder.prompt(np.array(history)) for history in HISTORIES]
    return recommender.recommend(prompts, build_trie(tiny_codes(), ALL), excluded, memory)


def by_formula() -> NDArray[np.float64]:
    """log p of every item, [user, item], from the model's own scores of all items."""
    items, scores = decoded(40, 40, None)
    mixed = np.empty(items.shape)
    for user, (order, by_model) in enumerate(zip(items, scores, strict=True)):
        counts = np.zeros(40)
        counts[KNOWN.items[user]] = KNOWN.weights[user]
        mixed[user, order] = np.log((counts[order] + 5.0 * np.exp(by_model)) / (counts.sum() + 5.0))
    return mixed


def test_every_item_gets_the_probability_of_the_formula() -> None:
    expected = by_formula()
    items, scores = decoded(40, 40, KNOWN)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, items, axis=1), rtol=0, atol=2e-5)
    assert (np.sort(items, axis=1) == ALL).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert items[2, 0] == 39 and items[0, 0] == 2


def test_a_narrow_search_finds_what_is_remembered() -> None:
    """Forty counts against five: whatever the model thinks of item 39, its prefix survives at every level."""
    items, scores = decoded(3, 3, KNOWN)
    assert items[2, 0] == 39
    np.testing.assert_allclose(scores[2, 0], by_formula()[2, 39], atol=2e-5)


def test_nothing_remembered_is_the_model_alone() -> None:
    alone, mixed = decoded(10, 10, None), decoded(10, 10, KNOWN)
    assert alone[0][1].tolist() == mixed[0][1].tolist()
    np.testing.assert_allclose(alone[1][1], mixed[1][1], atol=1e-5)


def test_what_is_left_out_stays_out_however_well_it_is_remembered() -> None:
    excluded = [np.array([2, 31]), np.array([], dtype=np.int64), np.array([39])]
    items, scores = decoded(40, 10, KNOWN, excluded)
    expected = by_formula()
    for user, gone in enumerate(excluded):
        assert not np.isin(items[user], gone).any()
        expected[user, gone] = -np.inf
        assert items[user].tolist() == np.argsort(-expected[user], kind="stable")[:10].tolist()
        np.testing.assert_allclose(scores[user], np.sort(expected[user])[::-1][:10], atol=2e-5)


def test_weights_of_prefixes_are_the_sums_of_their_items() -> None:
    codes = tiny_codes()
    trie = build_trie(codes, ALL)
    items = torch.tensor([[31, 2, 17, 9, -1, -1]])
    weights = torch.tensor([[2.0, 3.0, 0.5, 1.0, 0.0, 0.0]])
    nodes = remembered_nodes(trie, Memory(items, weights, 5.0))
    for level in range(codes.shape[1]):
        expected: dict[tuple[int, ...], float] = {}
        for item, weight in zip(items[0, :4].tolist(), weights[0, :4].tolist(), strict=True):
            prefix = tuple(codes[item, : level + 1].tolist())
            expected[prefix] = expected.get(prefix, 0.0) + weight / 11.5
        shares = nodes.log_shares[level][0].exp()
        found = sorted(shares[shares > 0].tolist())
        assert found == pytest.approx(sorted(expected.values()), abs=1e-6)


def test_items_that_the_catalogue_lacks_are_ignored() -> None:
    trie = build_trie(tiny_codes(), np.arange(20))
    memory = Memory(torch.tensor([[31, 3]]), torch.tensor([[2.0, 1.0]]), 5.0)
    shares = remembered_nodes(trie, memory).log_shares[-1].exp()
    assert sorted(shares[0].tolist()) == pytest.approx([0.0, 1 / 8])
