"""Like items by hand, and in a catalogue too large to compare all with all."""

import numpy as np
import pytest
from numpy.typing import NDArray

from peso.memory.neighbours import Neighbours
from peso.semantic_ids import similar_items as module
from peso.semantic_ids.similar_items import NUM_SIMILAR, SHARPNESS, similar_items


def of_item(found: Neighbours, item: int) -> dict[int, float]:
    start, end = found.offsets[item], found.offsets[item + 1]
    return dict(zip(found.items[start:end].tolist(), found.weights[start:end].tolist(), strict=True))


def test_by_hand() -> None:
    """Items 0 and 1 have one direction, 2 lies between it and 3's, 4 is opposite, and of 5 nothing is known."""
    vectors = np.array([[2, 0], [5, 0], [1, 1], [0, 3], [-1, 0], [0, 0]], dtype=np.float32)
    found = similar_items(vectors, np.zeros((6, 2), dtype=np.int64))
    half = 0.5 ** (SHARPNESS / 2)
    assert of_item(found, 0) == pytest.approx({1: 1.0, 2: half})
    assert of_item(found, 2) == pytest.approx({0: half, 1: half, 3: half})
    assert of_item(found, 3) == pytest.approx({2: half})
    assert of_item(found, 4) == of_item(found, 5) == {}


@pytest.fixture
def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(1300, 4)).astype(np.float32)


def test_the_nearest_are_kept_whatever_the_batch(vectors: NDArray[np.float32]) -> None:
    found = similar_items(vectors, np.zeros((len(vectors), 1), dtype=np.int64))
    units = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    for item in (0, 511, 512, 1299):
        cosines = units @ units[item]
        cosines[item] = -1
        wanted = np.sort(np.argsort(-cosines)[:NUM_SIMILAR])
        assert list(of_item(found, item)) == wanted.tolist()
        np.testing.assert_allclose(list(of_item(found, item).values()), cosines[wanted] ** SHARPNESS, rtol=1e-4)


def test_a_large_catalogue_compares_within_a_first_code(
    vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = np.random.default_rng(1).integers(0, 3, size=(len(vectors), 2))
    codes[0, 0] = 7  # alone behind its code
    monkeypatch.setattr(module, "LARGEST_SEARCHED", 1000)
    found = similar_items(vectors, codes)
    assert of_item(found, 0) == {}
    for item in (1, 700):
        alike = np.array(list(of_item(found, item)))
        assert len(alike) == NUM_SIMILAR and (codes[alike, 0] == codes[item, 0]).all()


def test_no_items_at_all() -> None:
    found = similar_items(np.empty((0, 3), dtype=np.float32), np.empty((0, 2), dtype=np.int64))
    assert found.offsets.tolist() == [0] and len(found.items) == 0
    alone = similar_items(np.ones((1, 3), dtype=np.float32), np.zeros((1, 2), dtype=np.int64))
    assert alone.offsets.tolist() == [0, 0]
