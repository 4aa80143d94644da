"""The benchmark of tokenizers: the data it reads, and the page it writes."""

from pathlib import Path

import pytest

from benchmarks.semantic_ids_page import page_of
from benchmarks.titles import load_titles


def test_the_real_titles(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESO_SHARED_DATA", str(shared_data))
    titles = load_titles()
    assert titles.dataset.num_items == len(titles.brands) == 3686
    assert titles.dataset.titles[1].startswith("Stanley TRA708T Sharpshooter")
    assert titles.brands[1] == "Stanley"
    assert titles.released_codes is not None and titles.released_codes.shape == (3686, 3)
    # The first row of `valid`: one item of history, then the target.
    first = titles.dataset.event_user == 0
    assert titles.dataset.event_item[first].tolist() == [3112, 114]
    assert titles.dataset.event_block[first].tolist() == [0, 1]


def test_without_the_data_a_catalogue_is_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESO_SHARED_DATA", str(tmp_path))
    titles = load_titles()
    assert titles.dataset.num_items == 3686
    assert titles.released_codes is None


def test_the_page() -> None:
    record = {
        "targets": {"rq-kmeans_seconds": {"value": 3.25, "target": 20.0, "met": True}},
        "details": {"num_items": 12, "tokenizers": {"tfidf, rq-kmeans": {"seconds": 3.25, "num_moved": 4}}},
        "machine": {"cpu": "x", "threads": 1, "load_average": 0.5, "cpus": 2},
    }
    page = page_of(record)
    assert "| rq-kmeans_seconds | 3.25 | 20.0 | yes |" in page
    assert "| tfidf, rq-kmeans | 3.25 | - | - | - | 4 | - " in page
