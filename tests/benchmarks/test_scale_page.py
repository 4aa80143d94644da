"""The page of many machines holds what its measurements and assumptions give."""

from pathlib import Path

import pytest

from benchmarks.scale_page import (
    PAGE,
    RESULTS,
    TARGETS_PER_CORE,
    Rates,
    Size,
    computed,
    core_hours,
    filled,
    useful_cores,
)
from peso.config import RunConfig

REPOSITORY = Path(__file__).parents[2]

RATES = Rates(
    import_rows=1000.0,
    import_gib_per_row=1e-7,
    train_targets=100.0,
    update_seconds=0.01,
    recommend_users=50.0,
    trie_bytes=16.0,
    list_bytes=100.0,
)


def test_the_tables_are_those_of_the_results() -> None:
    page = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    assert filled(page, computed(REPOSITORY / RESULTS)) == page, "run python -m benchmarks.scale_page"


def test_hours_of_a_core_by_hand() -> None:
    hours = {job: hours for job, (_, hours) in core_hours(Size("small", 1000, 100, 4), RATES).items()}
    assert hours["import, once"] == pytest.approx(20_000 / 1000 * 2 / 3600)
    assert hours["base, once"] == pytest.approx(12_000 * 21 / 100 * 2 / 3600)
    assert hours["update, per block"] == pytest.approx(300 * 18 * 0.01 * 2 / 3600)
    assert hours["all lists, per block"] == pytest.approx(20 / 3600)


def test_a_job_uses_no_more_cores_than_its_steps_feed() -> None:
    assert useful_cores("all lists, per block", 2048) == 2048
    assert useful_cores("import, once", 2048) == 2
    training = RunConfig().training
    assert useful_cores("base, once", 2048) == training.base_batch_targets // TARGETS_PER_CORE
    assert useful_cores("update, per block", 1) == 1
