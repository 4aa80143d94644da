"""Model and memory together: against the formula on every item, and inside a search."""

from dataclasses import replace
from functools import cache

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
from peso.types import DecodingNormaliser
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset

ALL = np.arange(40)
HISTORIES = [[3, 7, 1], [20], [5, 5, 8, 30, 2, 11]]
STRENGTHS = (5.0, 2.0, 0.5)
KNOWN = RememberedItems(
    [np.array([2, 9, 17, 31]), np.array([], dtype=np.int64), np.array([0, 39])],
    [np.array([3.0, 1.0, 0.5, 2.0]), np.array([]), np.array([0.25, 40.0])],
    STRENGTHS,
    0.5,
)


def decoded(
    width: int,
    k: int,
    memory: RememberedItems | None,
    excluded: list[NDArray[np.int64]] | None = None,
    normaliser: DecodingNormaliser = "level",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    model, tokenizer = tiny_backbone()
    made: tuple[SequenceBuilder, Vocabulary] = tiny_builder(tokenizer, tiny_dataset(), tiny_codes(), "sid")
    builder, vocabulary = made
    decoding = DecodingConfig(num_recommendations=k, beam_width=width, normaliser=normaliser)
    recommender = Recommender(model, vocabulary, decoding)
    prompts = [builder.prompt(np.array(history)) for history in HISTORIES]
    return recommender.recommend(prompts, build_trie(tiny_codes(), ALL), excluded, memory)


def by_formula(power: float = 0.5, over_children: bool = False) -> NDArray[np.float64]:
    """log p of every item, [user, item], level by level from the model's own scores of all codes."""
    codes = tiny_codes()
    by_model = over_the_trie(code_log_probabilities()) if over_children else code_log_probabilities()
    mixed = np.zeros(by_model.shape[:2])
    for user in range(len(mixed)):
        counts = np.zeros(40)
        counts[KNOWN.items[user]] = KNOWN.weights[user]
        for item in range(40):
            is_behind = np.ones(40, dtype=bool)
            for level, of_level in enumerate(STRENGTHS):
                before = counts[is_behind].sum()
                is_behind &= codes[:, level] == codes[item, level]
                strength = of_level * np.exp(by_model[user, item, :level].sum()) ** power
                share = strength * np.exp(by_model[user, item, level])
                mixed[user, item] += np.log((counts[is_behind].sum() + share) / (before + strength))
    return mixed


def over_the_trie(by_model: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same probabilities over the codes that lead to an item behind each prefix."""
    codes, found = tiny_codes(), by_model.copy()
    for item in range(40):
        behind = np.arange(40)
        for level in range(3):
            firsts = behind[np.unique(codes[behind, level], return_index=True)[1]]
            found[:, item, level] -= np.log(np.exp(by_model[:, firsts, level]).sum(1))
            behind = behind[codes[behind, level] == codes[item, level]]
    return found


@cache
def code_log_probabilities() -> NDArray[np.float64]:
    """log p(code | history, codes before) of the model for every user and item, [user, item, level]."""
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, tiny_dataset(), tiny_codes(), "sid")
    found = np.zeros((len(HISTORIES), 40, 3))
    for user, history in enumerate(HISTORIES):
        prompt = builder.prompt(np.array(history))
        for item in range(40):
            tokens = torch.from_numpy(np.r_[prompt, vocabulary.item_token_ids[item]])[None]
            with torch.no_grad():
                logits = model(input_ids=tokens).logits[0].double()
            for level, ids in enumerate(vocabulary.level_token_ids):
                at = len(prompt) - 1 + level
                of_level = logits[at, torch.from_numpy(ids)].log_softmax(0)
                found[user, item, level] = float(of_level[tiny_codes()[item, level]])
    return found


@pytest.mark.parametrize("normaliser", ["level", "trie"])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_every_item_gets_the_probability_of_the_formula(power: float, normaliser: DecodingNormaliser) -> None:
    expected = by_formula(power, over_children=normaliser == "trie")
    items, scores = decoded(40, 40, replace(KNOWN, prefix_power=power), normaliser=normaliser)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, items, axis=1), rtol=0, atol=2e-5)
    assert (np.sort(items, axis=1) == ALL).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert items[2, 0] == 39 and items[0, 0] == 2


def test_a_narrow_search_finds_what_is_remembered() -> None:
    """Forty counts against five and fewer: whatever the model thinks of item 39, its prefix survives at every level."""
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


def test_probabilities_of_all_items_and_none_sum_to_less_than_one() -> None:
    """What is missing from one is the mass of code sequences that are no item."""
    total = np.exp(by_formula()).sum(1)
    assert (total < 1 + 1e-9).all() and total[2] > 0.8


def test_an_item_nobody_saw_profits_from_its_prefix() -> None:
    codes = tiny_codes()
    similar = [item for item in range(39) if codes[item, 0] == codes[39, 0]]
    backing_off = RememberedItems(KNOWN.items, KNOWN.weights, (5.0, 200.0, 200.0), 0.0)
    alone, mixed = (
        dict(zip(*(side[2] for side in decoded(40, 40, memory)), strict=True)) for memory in (None, backing_off)
    )
    assert similar and all(mixed[item] > alone[item] + 0.5 for item in similar)


def test_weights_of_prefixes_are_the_sums_of_their_items() -> None:
    codes = tiny_codes()
    trie = build_trie(codes, ALL)
    items = torch.tensor([[31, 2, 17, 9, -1, -1]])
    weights = torch.tensor([[2.0, 3.0, 0.5, 1.0, 0.0, 0.0]])
    remembered = remembered_nodes(trie, Memory(items, weights, STRENGTHS, 0.5))
    assert float(remembered.total) == 6.5
    for level in range(codes.shape[1]):
        expected: dict[tuple[int, ...], float] = {}
        for item, weight in zip(items[0, :4].tolist(), weights[0, :4].tolist(), strict=True):
            prefix = tuple(codes[item, : level + 1].tolist())
            expected[prefix] = expected.get(prefix, 0.0) + weight
        of_level = remembered.weights[level][0]
        assert sorted(of_level[of_level > 0].tolist()) == pytest.approx(sorted(expected.values()))
        nodes = remembered.nodes[level][0]
        assert (nodes[1:] >= nodes[:-1]).all()
        if level + 1 < codes.shape[1]:
            asked = torch.cat([nodes[: len(expected)], torch.tensor([10**6])])[None]
            found = remembered.of_beams(level + 1, asked)
            assert found[0].tolist() == [*of_level[: len(expected)].tolist(), 0.0]


def test_items_that_the_catalogue_lacks_are_ignored() -> None:
    trie = build_trie(tiny_codes(), np.arange(20))
    remembered = remembered_nodes(trie, Memory(torch.tensor([[31, 3]]), torch.tensor([[2.0, 1.0]]), STRENGTHS, 0.5))
    assert remembered.weights[-1][0].tolist() == [1.0, 0.0]
    assert float(remembered.total) == 1.0
