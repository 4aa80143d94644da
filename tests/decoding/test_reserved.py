"""Places for new items: the true best of them by exact scores, and the best others besides."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.config import DecodingConfig, make_config
from peso.decoding.recommend import Recommender
from peso.decoding.reserved import Reserved, merge, recommend_with_new
from peso.decoding.trie import build_trie
from peso.errors import ConfigError
from peso.semantic_ids.catalogue import SemanticIds
from peso.training.materials import Materials
from peso.training.measure import reserved_for_new
from peso.training.stream import run_stream
from streams import config, fill
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset

HISTORIES = [np.array([3, 7, 1]), np.array([5]), np.array([2, 9, 30, 31, 8, 6])]


def oracle(scores: dict[int, float], new: set[int], k: int, places: int) -> list[int]:
    """The definition, item by item."""
    best_new = sorted((item for item in scores if item in new), key=lambda item: -scores[item])[:places]
    others = sorted((item for item in scores if item not in best_new), key=lambda item: -scores[item])
    return sorted([*best_new, *others[: k - len(best_new)]], key=lambda item: -scores[item])


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000), num_items=st.integers(1, 30), k=st.integers(1, 12), places=st.integers(1, 12),
    share=st.floats(0, 1),
)  # fmt: skip
def test_merged_lists_are_those_of_the_definition(seed: int, num_items: int, k: int, places: int, share: float) -> None:
    places = min(places, k)
    random = np.random.default_rng(seed)
    scores = dict(enumerate((-random.random(num_items)).astype(np.float32).tolist()))
    new = set(np.flatnonzero(random.random(num_items) < share).tolist())

    def best(items: list[int], length: int) -> tuple[Any, Any]:
        ordered = sorted(items, key=lambda item: -scores[item])[:length]
        missing = length - len(ordered)
        listed = np.array([[*ordered, *[-1] * missing]], dtype=np.int64)
        return listed, np.array([[*(scores[item] for item in ordered), *[-np.inf] * missing]], dtype=np.float32)

    items, merged = merge(best(list(scores), k), best(sorted(new), places))
    expected = oracle(scores, new, k, places)
    assert items[0].tolist() == [*expected, *[-1] * (k - len(expected))]
    assert merged[0, : len(expected)].tolist() == [scores[item] for item in expected]
    assert np.isneginf(merged[0, len(expected) :]).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_a_search_with_reserved_beams_finds_the_true_best_new_items(share: float) -> None:
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, tiny_dataset(), tiny_codes())
    prompts = [builder.prompt(history) for history in HISTORIES]
    new = np.array([1, 8, 17, 22, 33, 39])
    trie, newest = build_trie(tiny_codes(), np.arange(40)), build_trie(tiny_codes(), new)
    everything = Recommender(model, vocabulary, DecodingConfig(num_recommendations=40, beam_width=40))
    all_items, all_scores = everything.recommend(prompts, trie, HISTORIES)
    # Wide enough that neither search leaves anything out.
    recommender = Recommender(model, vocabulary, DecodingConfig(num_recommendations=10, beam_width=400))
    items, scores = recommend_with_new(recommender, prompts, trie, Reserved(newest, share), HISTORIES)
    for user in range(len(prompts)):
        exact = dict(zip(all_items[user].tolist(), all_scores[user].tolist(), strict=True))
        exact.pop(-1, None)
        places = int(np.ceil(share * 10))
        expected = oracle(exact, set(new.tolist()), 10, places)
        assert items[user].tolist() == expected
        np.testing.assert_allclose(scores[user], [exact[item] for item in expected], atol=1e-5)
        assert len(set(items[user].tolist()) & set(new.tolist())) >= min(places, len(set(new) - set(HISTORIES[user])))


def test_what_counts_as_new(tmp_path: Any) -> None:
    dataset = tiny_dataset()
    codes = tiny_codes()
    ids = SemanticIds(codes, codes, tuple(int(size) for size in codes.max(0) + 1))
    chosen = config(decoding={"beam_width": 10, "new_item_share": 0.2})
    materials = Materials(dataset, ids, chosen)
    allowed = np.flatnonzero(dataset.item_first_block <= 1)
    reserved = reserved_for_new(materials, allowed, 1)
    wanted = np.flatnonzero(dataset.item_first_block == 1)
    if len(wanted):
        assert reserved is not None and sorted(reserved.trie.leaf_items.tolist()) == wanted.tolist()
    assert reserved_for_new(materials, allowed, 0) is None, "in block 0 everything is of one age"
    assert reserved_for_new(Materials(dataset, ids, config()), allowed, 1) is None


def test_runs_keep_places_and_their_names(tmp_path: Any) -> None:
    workspace = fill(tmp_path)
    plain = make_config(None, {})
    assert "new_item_share" not in plain.model_dump(mode="json")["decoding"]
    results = []
    for share in (0, 0.3):
        chosen = config(decoding={"beam_width": 20, "new_item_share": share}, memory={"use": False})
        folder = run_stream(workspace, chosen)
        results.append(json.loads((folder / "result.json").read_text()))
    without, with_places = results
    assert without["invalid_items"] == with_places["invalid_items"] == with_places["duplicate_items"] == 0
    new, old = (
        [block["groups"]["new_item"]["hit@10"] for block in result["blocks"]] for result in (with_places, without)
    )
    assert all(more is None or more >= less for more, less in zip(new, old, strict=True)) and new != old


def test_scores_that_depend_on_the_trie_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'new_item_share 0\.2 needs decoding\.normaliser "level" or "vocabulary"'):
        make_config(None, {"decoding": {"new_item_share": 0.2, "normaliser": "trie"}})
