"""A codebook that fits tomorrow's items, and one that does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalogues import shop_dataset
from commands import assert_one_sentence, output_of, peso
from peso.data.dataset import Dataset
from peso.data.storage import save_dataset
from peso.errors import DataError, WorkspaceError
from peso.semantic_ids.drift import BlockDrift, _held_out_error, judge, measure_drift
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace

SIZES = (16, 16, 64)


def encoded(folder: Path, dataset: Dataset, quantizer: str = "rq-kmeans") -> Path:
    save_dataset(dataset, folder / "data")
    encode_workspace(folder, EncodingRequest("tfidf", quantizer, SIZES))
    return folder


def renamed(dataset: Dataset, first: int, title: str) -> Dataset:
    titles = [title.format(n) if n >= first else old for n, old in enumerate(dataset.titles)]
    return replace(dataset, titles=titles)


def with_vectors(folder: Path, shift: float, spread: float) -> Path:
    """Items of block 0 around the origin, later ones around somewhere else, more or less far apart."""
    items = np.arange(500)
    ids = [str(item) for item in items]
    dataset = Dataset(ids, ids, ids, items, items, (items >= 400).astype(np.int64), 2)
    vectors = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    vectors[400:] = vectors[400:] * spread + shift
    save_dataset(dataset, folder / "data")
    np.save(folder / "vectors.npy", vectors)
    encode_workspace(folder, EncodingRequest("precomputed", "rq-kmeans", (16, 16, 64), vectors=folder / "vectors.npy"))
    return folder


def test_more_of_the_same_needs_no_other_codebook(tmp_path: Path) -> None:
    found = measure_drift(with_vectors(tmp_path, 0.0, 1.0))
    assert not found.refresh and "keep it" in found.reason
    base, later = found.blocks
    assert (base.block, base.num_items, later.block, later.num_items) == (0, 400, 1, 100)
    assert base.error_ratio is None and later.error is not None and base.error is not None
    assert base.error < found.held_out_error
    assert later.error_ratio == pytest.approx(later.error / found.held_out_error)
    assert later.error_ratio == pytest.approx(1, abs=0.2)
    assert 1 <= later.perplexity <= 16


@pytest.mark.parametrize(("shift", "spread"), [(2.5, 1.0), (0.0, 2.0)])
def test_items_elsewhere_or_further_apart_call_for_one(tmp_path: Path, shift: float, spread: float) -> None:
    found = measure_drift(with_vectors(tmp_path, shift, spread))
    assert found.refresh and "learn the codebook anew" in found.reason
    assert found.blocks[1].error_ratio is not None and found.blocks[1].error_ratio > 1.25
    facts = output_of("items", "drift", "--workspace", tmp_path, "--json")
    assert facts["refresh"] and facts["reason"] == found.reason
    assert len(facts["blocks"]) == 2


def test_items_without_words_are_counted_and_not_averaged(tmp_path: Path) -> None:
    dataset = renamed(shop_dataset(200, 60), 140, "")
    (_, later) = measure_drift(encoded(tmp_path, dataset)).blocks
    assert later.num_without_vector == later.num_items > 20 and later.moved_share is None
    assert later.error is None and later.error_ratio is None


def block(number: int, num_items: int = 50, ratio: float | None = 1.0, rise: float = 0.0) -> BlockDrift:
    return BlockDrift(number, num_items, 0, 0.1, ratio, 0.3, rise, 4.0)


def test_the_latest_block_with_enough_items_decides() -> None:
    base = block(0, ratio=None)
    assert judge([base])[0] is False
    assert judge([base, block(1, ratio=2.0), block(2)])[0] is False
    assert judge([base, block(1), block(2, ratio=1.26)]) == (
        True,
        "New items of block 2 are 1.26 times as far from their codes as unseen items of block 0 (limit 1.25): learn "
        "the codebook anew.",
    )
    assert judge([base, block(1, ratio=1.3), block(2, num_items=19, ratio=1.0)])[0] is True
    assert "raise their error by 12%" in judge([base, block(1, rise=0.12)])[1]
    assert judge([base, block(1, ratio=None, rise=0.05)])[0] is False


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="not made by nearness"):
        measure_drift(encoded(tmp_path / "random", shop_dataset(), "random"))
    with pytest.raises(DataError, match="4 items with a vector; holding some out takes at least 5"):
        _held_out_error("rq-kmeans", np.eye(4, dtype=np.float32), SIZES, seed=0)
    with pytest.raises(DataError, match="lie exactly on codes"):
        _held_out_error("rq-kmeans", np.ones((40, 4), dtype=np.float32), SIZES, seed=0)
    assert_one_sentence(peso("items", "drift", "--workspace", tmp_path / "none"), "none")
