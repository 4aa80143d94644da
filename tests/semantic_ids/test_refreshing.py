"""A codebook that goes on learning: words keep their meaning, few items move, and each for the better."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogues import clustered_vectors, shop_dataset
from commands import assert_one_sentence, peso
from peso.data.dataset import Dataset
from peso.data.merged_blocks import merge_first_blocks
from peso.data.storage import load_dataset, save_dataset
from peso.errors import DataError, WorkspaceError
from peso.semantic_ids.added_items import load_added_items
from peso.semantic_ids.adding import add_items
from peso.semantic_ids.catalogue import SemanticIds, load_semantic_ids
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace, unique_codes
from peso.semantic_ids.item_tokenizer import load_item_tokenizer
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.registry import build_quantizer
from peso.semantic_ids.refreshing import refresh_workspace
from peso.semantic_ids.relearning import relearn
from worlds import tiny_dataset

SIZES = (16, 8, 64)


def learned(vectors: Any, sizes: tuple[int, ...] = SIZES, quantizer: str = "rq-kmeans") -> AdditiveCodebook:
    codebook = build_quantizer(quantizer).fit(vectors, np.ones(len(vectors)), sizes, 0).codebook
    assert isinstance(codebook, AdditiveCodebook)
    return codebook


def errors(codebook: AdditiveCodebook, vectors: Any, codes: Any) -> Any:
    return codebook.squared_errors(vectors, codes, len(codebook.level_sizes))


def unique(codebook: AdditiveCodebook, vectors: Any) -> Any:
    return unique_codes(codebook, vectors, codebook.encode(vectors), np.zeros(len(vectors), dtype=np.int64)).codes


@pytest.mark.parametrize("quantizer", ["rq-kmeans", "rq-vae"])
def test_words_follow_the_items_and_keep_their_meaning(quantizer: str) -> None:
    old = clustered_vectors(300)
    codebook = learned(old, quantizer=quantizer)
    later = np.concatenate([old, clustered_vectors(300, seed=5) + 0.3]).astype(np.float32)
    codes = unique(codebook, later)
    found = relearn(codebook, later, codes, 60)
    assert found.codebook.level_sizes == codebook.level_sizes
    assert errors(found.codebook, later, found.codes).mean() < 0.95 * errors(codebook, later, codes).mean()
    assert 0 < found.is_moved.sum() <= 60
    # Half of the items are new and stand elsewhere, yet most old ones still read their first word as the nearest; a
    # codebook that is learned from nothing calls them something else.
    kept, anew = (
        (one.encode(old)[:, 0] == codes[:300, 0]).mean()
        for one in (found.codebook, learned(later, quantizer=quantizer))
    )
    assert kept > 0.6 > 0.2 > anew


def test_with_codes_fixed_words_are_the_means_of_what_is_left() -> None:
    vectors = clustered_vectors(400, seed=2)
    codebook = learned(vectors[:100], (4, 4, 64))
    codes = unique(codebook, vectors)
    found = relearn(codebook, vectors, codes, 0)
    assert (found.codes == codes).all() and not found.is_moved.any()
    left = vectors.astype(np.float64)
    for level, words in enumerate(found.codebook.codewords):
        for code in np.unique(codes[:, level]):
            members = codes[:, level] == code
            np.testing.assert_allclose(words[code], left[members].mean(axis=0), atol=1e-5)
        left -= words[codes[:, level]]
    assert errors(found.codebook, vectors, codes).mean() < errors(codebook, vectors, codes).mean()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), most=st.integers(0, 60), shift=st.floats(0, 2))
def test_moves_are_few_unique_and_for_the_better(seed: int, most: int, shift: float) -> None:
    vectors = clustered_vectors(60, seed=seed % 7)
    vectors[::11] = 0
    codebook = learned(vectors, (4, 4, 8))
    codes = unique(codebook, vectors)
    drifted = vectors + np.random.default_rng(seed).normal(size=vectors.shape).astype(np.float32) * np.float32(shift)
    drifted[::11] = 0
    found = relearn(codebook, drifted, codes, most)
    assert len(np.unique(found.codes, axis=0)) == 60
    assert ((found.codes != codes).any(axis=1) == found.is_moved).all() and found.is_moved.sum() <= most
    teaches = drifted.any(axis=1)
    before, after = errors(codebook, drifted, codes), errors(found.codebook, drifted, found.codes)
    assert after[teaches].sum() <= before[teaches].sum()
    assert not found.is_moved[::11].any(), "what has no vector has no reason to move"
    stayed = errors(found.codebook, drifted, codes)
    assert after[found.is_moved].sum() <= stayed[found.is_moved].sum()


def test_blocks_are_merged_and_nothing_else_changes() -> None:
    dataset = tiny_dataset(num_blocks=4)
    merged = merge_first_blocks(dataset, 2)
    assert merged.num_blocks == 2
    assert (merged.event_block == (dataset.event_block == 3)).all()
    assert (merged.event_item == dataset.event_item).all() and merged.user_ids == dataset.user_ids
    assert merge_first_blocks(dataset, 0).fingerprint == dataset.fingerprint
    for last in (3, -1):
        with pytest.raises(
            DataError, match=f"block {last} is not followed by another one; of 4 blocks, give one from 0"
        ):
            merge_first_blocks(dataset, last)
    with pytest.raises(DataError, match="the data have one block"):
        merge_first_blocks(tiny_dataset(num_blocks=1), 0)


def drifting(folder: Path, quantizer: str = "rq-kmeans") -> Path:
    """Three blocks; the items of block 1 stand elsewhere than those of block 0, and those of block 2 there as well."""
    items = np.arange(600)
    ids = [str(item) for item in items]
    blocks = np.repeat([0, 1, 2], [300, 200, 100])
    save_dataset(Dataset(ids, ids, ids, items, items, blocks, 3), folder / "data")
    vectors = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
    vectors[300:] += 2
    np.save(folder / "vectors.npy", vectors)
    request = EncodingRequest("precomputed", quantizer, (8, 8, 64), vectors=folder / "vectors.npy")
    encode_workspace(folder, request)
    return folder


def ids_of(workspace: Path) -> SemanticIds:
    return load_semantic_ids(workspace / "data" / "semantic_ids", load_dataset(workspace / "data").item_ids)


def test_a_new_workspace_has_few_new_codes_and_better_ones(tmp_path: Path) -> None:
    old = drifting(tmp_path / "old")
    facts = refresh_workspace(old, tmp_path / "new", 1, 0.1)
    before, after = ids_of(old), ids_of(tmp_path / "new")
    assert (facts["num_items"], facts["num_later"], facts["last_block"]) == (500, 100, 1)
    assert 0 < facts["num_moved"] <= 50
    assert (before.codes != after.codes)[:500].any(axis=1).sum() == facts["num_moved"]
    assert len(np.unique(after.codes, axis=0)) == 600
    assert facts["error_after"] < facts["error_before"]
    assert load_dataset(tmp_path / "new" / "data").num_blocks == 2
    vectors = np.load(old / "vectors.npy")
    codebooks = [load_item_tokenizer(one / "data" / "semantic_ids").codebook for one in (old, tmp_path / "new")]
    later = [errors(one, vectors[500:], one.encode(vectors[500:])).mean() for one in codebooks]  # type: ignore[arg-type]
    assert later[1] < 0.8 * later[0], "items like those of block 1 now find codes that fit"
    record = json.loads((tmp_path / "new" / "data" / "semantic_ids" / "encoding.json").read_text())
    assert record["refresh"] == facts | {"semantic_ids_before": before.fingerprint}
    assert record["num_items_learned_from"] == 500


def test_items_of_later_blocks_play_no_part(tmp_path: Path) -> None:
    old = drifting(tmp_path / "old")
    refresh_workspace(old, tmp_path / "new", 1, 0.2)
    other = drifting(tmp_path / "other")
    vectors = np.load(other / "vectors.npy")
    vectors[500:] = vectors[500:][::-1] - 7
    np.save(other / "vectors.npy", vectors)
    encode_workspace(other, EncodingRequest("precomputed", "rq-kmeans", (8, 8, 64), vectors=other / "vectors.npy"))
    refresh_workspace(other, tmp_path / "new other", 1, 0.2)
    assert (ids_of(tmp_path / "new").codes[:500] == ids_of(tmp_path / "new other").codes[:500]).all()


def test_share_0_keeps_every_code_that_was_learned(tmp_path: Path) -> None:
    old = drifting(tmp_path / "old")
    facts = refresh_workspace(old, tmp_path / "new", 1, 0.0)
    assert facts["num_moved"] == 0 and facts["error_after"] == facts["error_before"]
    assert (ids_of(old).codes == ids_of(tmp_path / "new").codes).all()


def test_added_items_come_along(tmp_path: Path) -> None:
    save_dataset(shop_dataset(), tmp_path / "old" / "data")
    encode_workspace(tmp_path / "old", EncodingRequest("tfidf", "rq-kmeans", (8, 4, 4)))
    pl.DataFrame({"item_id": ["x", "y"], "title": ["steel bolt tiny", "nylon rope"]}).write_csv(tmp_path / "new.csv")
    add_items(tmp_path / "old", tmp_path / "new.csv")
    refresh_workspace(tmp_path / "old", tmp_path / "new", 0, 0.5)
    ids = ids_of(tmp_path / "new")
    added = load_added_items(tmp_path / "new", ids)
    assert list(added.ids) == ["x", "y"] and list(added.titles) == ["steel bolt tiny", "nylon rope"]
    assert len(np.unique(np.concatenate([ids.codes, added.codes]), axis=0)) == ids.num_items + 2


@pytest.mark.parametrize("quantizer", ["product", "random"])
def test_words_that_may_not_move(tmp_path: Path, quantizer: str) -> None:
    save_dataset(shop_dataset(), tmp_path / "old" / "data")
    encode_workspace(tmp_path / "old", EncodingRequest("tfidf", quantizer, (8, 4, 4)))
    with pytest.raises(WorkspaceError, match=f"codes of {quantizer} are not refreshed"):
        refresh_workspace(tmp_path / "old", tmp_path / "new", 0, 0.5)
    assert not (tmp_path / "new").exists()


def test_the_command_says_what_happened_and_refuses_in_one_sentence(tmp_path: Path) -> None:
    old = drifting(tmp_path / "old")
    command = ["items", "refresh", "--workspace", str(old), "--into", str(tmp_path / "new")]
    assert_one_sentence(peso(*command, "--share", "1.5"), "--share 1.5: give the largest share")
    assert_one_sentence(peso(*command, "--after", "2"), "block 2 is not followed by another one")
    assert_one_sentence(peso(*command, "--run", "peso-seed0"), "holds no finished run")
    assert not (tmp_path / "new").exists()
    done = peso(*command, "--share", "0.1")
    assert done.returncode == 0 and "500 items occur up to block 1;" in done.stdout
    assert "100 later items have new codes" in done.stdout
    assert_one_sentence(peso(*command), "holds data already; give a new folder")
