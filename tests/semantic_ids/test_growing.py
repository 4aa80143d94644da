"""A last level that grows: exactly when it must, by as much as the fullest neighbourhood needs, old codes untouched."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogues import clustered_vectors, shop_dataset
from peso.data.dataset import IntArray
from peso.data.storage import save_dataset
from peso.semantic_ids.added_items import load_added_items
from peso.semantic_ids.adding import add_items
from peso.semantic_ids.catalogue import load_semantic_ids
from peso.semantic_ids.drift import measure_drift
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.semantic_ids.growing import neighbour_weights, with_room
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.base import Codebook
from peso.semantic_ids.quantizers.registry import build_quantizer, restore_codebook
from peso.semantic_ids.settling import settle

QUANTIZERS = ("rq-kmeans", "product", "fsq", "random", "balanced")
SIZES = (4, 3, 3)


def fitted(quantizer: str, sizes: tuple[int, ...] = SIZES) -> tuple[Codebook, IntArray]:
    """A codebook and the distinct codes of thirty items."""
    vectors = clustered_vectors(30)
    codebook = build_quantizer(quantizer).fit(vectors, np.ones(30), sizes, 0).codebook
    none = np.empty((0, len(sizes)), dtype=np.int64)
    return codebook, settle(codebook, vectors, codebook.encode(vectors), none)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_a_codebook_with_room_stays_itself(quantizer: str) -> None:
    codebook, taken = fitted(quantizer)
    assert with_room(codebook, clustered_vectors(6, seed=1), taken) is codebook


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("num_new", [7, 50])
def test_more_items_than_codes(quantizer: str, num_new: int) -> None:
    codebook, taken = fitted(quantizer)
    vectors = clustered_vectors(num_new, seed=1)
    grown = with_room(codebook, vectors, taken)
    assert grown.level_sizes[:-1] == codebook.level_sizes[:-1]
    assert grown.level_sizes[-1] > codebook.level_sizes[-1]
    codes = settle(grown, vectors, grown.encode(vectors), taken)
    assert len(np.unique(np.concatenate([taken, codes]), axis=0)) == 30 + num_new
    assert (codes < grown.level_sizes).all()
    # Everybody stays behind the prefix that the vectors give, which is what the level grew for.
    assert np.array_equal(codes[:, :-1], codebook.encode(vectors)[:, :-1]) or not isinstance(codebook, AdditiveCodebook)
    again = restore_codebook(grown.state())
    assert np.array_equal(again.encode(vectors), grown.encode(vectors))


def test_the_fullest_prefix_decides() -> None:
    codebook, taken = fitted("rq-kmeans")
    twins = np.repeat(clustered_vectors(1, seed=3), 12, axis=0)
    here = (taken[:, :-1] == codebook.encode(twins)[0, :-1]).all(axis=1).sum()
    grown = with_room(codebook, twins, taken)
    assert grown.level_sizes == (4, 3, here + 12)
    assert with_room(grown, clustered_vectors(20, seed=4), taken) is grown, "the new room serves whoever comes next"


def test_items_that_say_nothing_go_anywhere() -> None:
    codebook, taken = fitted("rq-kmeans")
    grown = with_room(codebook, np.zeros((12, 6), dtype=np.float32), taken)
    assert grown.level_sizes == (4, 3, 4), "42 items need no more than 48 codes"


def test_old_codewords_and_codes_keep_their_meaning() -> None:
    codebook, taken = fitted("rq-kmeans")
    assert isinstance(codebook, AdditiveCodebook)
    grown = with_room(codebook, clustered_vectors(40, seed=1), taken)
    assert isinstance(grown, AdditiveCodebook)
    for before, after in zip(codebook.codewords, grown.codewords, strict=True):
        assert np.array_equal(before, after[: len(before)])
    vectors = clustered_vectors(30)
    assert np.allclose(grown.reconstruct(taken, 3), codebook.reconstruct(taken, 3))
    # With more words to choose from nobody's nearest code gets worse.
    worse, better = (book.squared_errors(vectors, book.encode(vectors), 3).sum() for book in (codebook, grown))
    assert better <= worse + 1e-9


def test_one_level_can_grow() -> None:
    codebook, taken = fitted("rq-kmeans", (32,))
    vectors = clustered_vectors(9, seed=1)
    grown = with_room(codebook, vectors, taken)
    assert grown.level_sizes == (39,)
    assert len(np.unique(settle(grown, vectors, grown.encode(vectors), taken))) == 9


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=5), st.integers(0, 5))
def test_any_number_of_days(days: list[int], seed: int) -> None:
    codebook, taken = fitted("rq-kmeans")
    for day, num_new in enumerate(days):
        vectors = clustered_vectors(num_new, seed=seed + day)
        before, codebook = codebook, with_room(codebook, vectors, taken)
        assert all(new >= old for new, old in zip(codebook.level_sizes, before.level_sizes, strict=True))
        taken = np.concatenate([taken, settle(codebook, vectors, codebook.encode(vectors), taken)])
        assert len(np.unique(taken, axis=0)) == len(taken) <= np.prod(codebook.level_sizes)


def test_new_codes_start_from_the_nearest() -> None:
    words = np.array([[0.0, 0], [1, 0], [0, 1], [10, 10], [0.1, 0], [1, 0]], dtype=np.float32)
    weights = neighbour_weights(AdditiveCodebook([np.zeros((2, 2), dtype=np.float32), words]), 4)
    assert weights.shape == (2, 4) and np.allclose(weights.sum(axis=1), 1)
    assert (weights[:, 3] == 0).all(), "three neighbours, and the far one is none of them"
    assert weights[0].argmax() == 0 and weights[0, 0] > 0.9
    assert weights[1, 1] == pytest.approx(1), "the very place of an old word"
    codebook, taken = fitted("random")
    alike = neighbour_weights(with_room(codebook, clustered_vectors(20, seed=1), taken), 3)
    assert np.allclose(alike, 1 / 3)


def table(folder: Path, titles: list[str], first: int) -> Path:
    path = folder / f"new{first}.csv"
    pl.DataFrame({"item_id": [f"new {first + n}" for n in range(len(titles))], "title": titles}).write_csv(path)
    return path


@pytest.mark.parametrize("quantizer", ["rq-kmeans", "random"])
def test_a_workspace_grows_beside_its_catalogue(quantizer: str, tmp_path: Path) -> None:
    save_dataset(shop_dataset(), tmp_path / "data")
    encode_workspace(tmp_path, EncodingRequest("tfidf", quantizer, (4, 4, 4)))
    files = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert add_items(tmp_path, table(tmp_path, ["steel bolt tiny"] * 4, 0))["num_new_codes"] == 0
    ids = load_semantic_ids(tmp_path / "data" / "semantic_ids", shop_dataset().item_ids)
    first = load_added_items(tmp_path, ids)
    assert first.codebook is None
    facts = add_items(tmp_path, table(tmp_path, [f"nylon rope no {n}" for n in range(9)], 4))
    assert facts["num_items"] == 73 and facts["num_new_codes"] > 0
    second = load_added_items(tmp_path, ids)
    assert second.codebook is not None
    assert second.codebook.level_sizes == (4, 4, 4 + facts["num_new_codes"])
    assert second.codes[:4].tolist() == first.codes.tolist()
    third = add_items(tmp_path, table(tmp_path, ["copper pipe"], 13))
    assert third["num_new_codes"] == 0, "there is room now"
    last = load_added_items(tmp_path, ids)
    assert last.codebook is not None and last.codebook.level_sizes == second.codebook.level_sizes
    assert len(np.unique(np.concatenate([ids.codes, last.codes]), axis=0)) == 74
    assert {path: path.read_bytes() for path in files} == files
    if quantizer == "rq-kmeans":
        measure_drift(tmp_path)
