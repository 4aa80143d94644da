"""The benchmarks' harness: alternation, medians, targets, and what is written."""

import json
import logging
import os
import sys
from pathlib import Path

import pytest

from benchmarks.engine_page import page
from benchmarks.harness import Comparison, Outcome, Target, compare, record_of, run_benchmark, table_of


def test_the_page_of_all_benchmarks_is_that_of_their_records() -> None:
    folder = Path(__file__).parents[2] / "docs" / "results" / "engine"
    records, one_thread = (
        [json.loads(file.read_text(encoding="utf-8")) for file in sorted(place.glob("*.json"))]
        for place in (folder, folder / "one_thread")
    )
    assert page(records, one_thread) == (folder / "README.md").read_text(encoding="utf-8")


def test_sides_take_turns_in_alternating_order_and_warm_up_is_dropped() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    comparison = compare({"ours": lambda: side("ours"), "rival": lambda: side("rival")}, turns=3, warm_up=1)
    assert calls == ["rival", "ours", "ours", "rival", "rival", "ours", "ours", "rival"]
    assert comparison.measured == {"ours": (3.0, 6.0, 7.0), "rival": (4.0, 5.0, 8.0)}


def test_ratio_is_the_median_of_pairs_not_the_pair_of_medians() -> None:
    # One disturbance hits both sides of the middle turn; the pairs still agree on 2.
    comparison = Comparison({"slow": (2.0, 200.0, 4.0), "fast": (1.0, 100.0, 2.0)})
    assert comparison.ratio("slow", "fast") == 2.0
    assert comparison.median("slow") == 4.0
    assert comparison.as_json()["fast"] == {"median": 2.0, "min": 1.0, "max": 100.0, "turns": 3}


@pytest.mark.parametrize(
    ("value", "direction", "met"),
    [
        (8.0, "at_least", True),
        (7.9, "at_least", False),
        (8.0, "at_most", True),
        (8.1, "at_most", False),
        (float("nan"), "at_least", False),
        (float("nan"), "at_most", False),
    ],
)
def test_targets_bind_in_their_direction(value: float, direction: str, met: bool) -> None:
    assert Target(value, 8.0, direction).met is met  # type: ignore[arg-type]


def test_record_names_targets_machine_and_versions() -> None:
    record = record_of("name", True, Outcome({"speed": Target(9.0, 8.0)}, {"note": 1}), 1.23)
    assert record["benchmark"] == "name"
    assert record["targets"]["speed"]["met"] is True
    assert record["machine"]["threads"] >= 1
    assert {"torch", "transformers", "peft"} <= set(record["versions"])
    assert "speed" in table_of(record)
    assert record["targets"]["quick_seconds"]["met"] is True
    slow, whole = (record_of("name", quick, Outcome({}), 61.0)["targets"] for quick in (True, False))
    assert slow["quick_seconds"]["met"] is False
    assert whole == {}


def test_what_is_not_a_number_is_null_and_not_met() -> None:
    record = record_of("name", False, Outcome({"speed": Target(float("nan"), 8.0)}), 1.0)
    assert json.loads(json.dumps(record, allow_nan=False))["targets"]["speed"]["value"] is None
    assert "not a number" in table_of(record)
    assert "| not a number | ≥ 8 | **no** | 1 |" in page([record], [])


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a benchmark hides from itself is seen again by other tests."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", "0"))


@pytest.mark.usefixtures("devices")
def test_stdout_holds_exactly_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(quick: bool) -> Outcome:
        sys.stdout.write("a library that talks\n")
        logging.getLogger("benchmarks").info("a log line")
        comparison = compare({"ours": lambda: 1.0, "rival": lambda: 3.0}, turns=3)
        return Outcome({"speed": Target(comparison.ratio("rival", "ours"), 2.0)}, comparison.as_json())

    output = tmp_path / "deep" / "name.json"
    monkeypatch.setattr(sys, "argv", ["name", "--quick", "--json", "--output", str(output)])
    run_benchmark("name", "Says nothing.", measure)
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads(output.read_text(encoding="utf-8"))
    assert record["quick"] is True
    assert record["targets"]["speed"] == {
        "value": 3.0, "target": 2.0, "direction": "at_least", "unit": "", "met": True
    }  # fmt: skip


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize("on_gpu", [False, True])
def test_only_one_of_a_gpu_sees_one(on_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["name"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    seen: list[str] = []

    def measure(quick: bool) -> Outcome:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return Outcome({})

    run_benchmark("name", None, measure, on_gpu=on_gpu)
    assert seen == ["0" if on_gpu else ""]


@pytest.mark.usefixtures("devices")
def test_table_without_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["name"])
    run_benchmark("name", None, lambda quick: Outcome({"cost": Target(2.0, 1.0, "at_most", "%")}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["cost", "2", "<=", "1", "%", "NO"]
