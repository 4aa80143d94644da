"""What an anchor does to an update, measured on a small world and on numbers made for it."""

from pathlib import Path

import pytest
import torch

from commands import assert_one_sentence, peso
from peso.config import dump_config
from peso.files import read_json
from peso.lm.low_rank import LowRank
from peso.studies.activity import CONTROL, STRENGTHS, _rounding, measure_activity
from peso.studies.activity_page import write_activity
from streams import config, fill

NUM_MODULES = 7


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill(tmp_path_factory.mktemp("world"))
    (folder / "small.toml").write_text(dump_config(config(adapter={"r": 4, "lora_alpha": 8})))
    return folder


def test_stronger_anchors_do_more_and_forms_differ_as_their_formulas_do(workspace: Path, tmp_path: Path) -> None:
    activities, roundings, fingerprint = measure_activity(workspace, workspace / "small.toml", [(16, 2)])
    control, *anchored = activities
    assert (control.form, control.strength) == CONTROL
    assert [(one.form, one.strength) for one in anchored] == [
        (form, strength) for form, strengths in STRENGTHS.items() for strength in strengths
    ]
    assert 0 < control.gradient_ratio < 1e-6
    assert control.difference_ratio < min(one.difference_ratio for one in anchored)
    assert control.distance_ratio == pytest.approx(1, abs=0.01)
    assert {(one.hidden_size, one.rank, one.rate_factor) for one in activities} == {(16, 2, 1.0)}
    by_form = {form: [one for one in anchored if one.form == form] for form in STRENGTHS}
    for form, points in by_form.items():
        assert all(0 < one.gradient_ratio for one in points), form
        differences = [one.difference_ratio for one in points]
        assert differences == sorted(differences), form
        distances = [one.distance_ratio for one in points]
        assert distances == sorted(distances, reverse=True) and distances[0] < 1, form
    for ours, theirs in zip(by_form["normalised"], by_form["l2"], strict=True):
        assert ours.difference_ratio == pytest.approx(theirs.difference_ratio, rel=0.1)
    weak, middle, strong = (one.difference_ratio for one in by_form["decoupled"])
    assert middle == pytest.approx(3 * weak, rel=0.1) and strong == pytest.approx(10 * weak, rel=0.1)
    official, paper = by_form["official"][0], by_form["paper"][0]
    assert official.gradient_ratio == pytest.approx(paper.gradient_ratio / NUM_MODULES, rel=0.3)
    assert [one.dtype for one in roundings] == ["bfloat16", "float32"]

    page = write_activity(tmp_path, activities, roundings, {"command": "peso bench proximal", "data": fingerprint})
    record = read_json(tmp_path / "proximal.json", "result")
    assert len(record["activities"]) == len(activities)
    text = page.read_text()
    assert text.count("| decoupled |") == 3 and text.count("| control |") == 1 and "bfloat16" in text
    assert (tmp_path / "proximal.svg").read_text().startswith("<svg")


def test_every_anchor_is_tried_at_the_rate_that_training_without_one_chose(workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "rates.toml"
    rates = {"epochs": 1, "rate_factors": [0.01, 1.0]}
    file.write_text(dump_config(config(training=rates)))
    activities, _, _ = measure_activity(workspace, file, [(16, 2)])
    assert {one.rate_factor for one in activities} == {1.0}
    weakest = activities[1]
    assert weakest.form == "paper" and 0.8 < weakest.distance_ratio < 1


def test_rounding_is_told_from_the_exact_divergence() -> None:
    """After a large move a difference of log-softmaxes holds in float32; after a tiny one it is noise in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    before = LowRank({"l": torch.randn(4, 300, generator=generator)}, {"l": torch.randn(300, 4, generator=generator)})

    def moved(by: float) -> LowRank:
        step = {"l": by * torch.randn(4, 300, generator=generator)}
        return LowRank({"l": before.a["l"] + step["l"]}, {"l": before.b["l"] + step["l"].T})

    value, cosine = _rounding(moved(1.0), before, torch.float32)
    assert value == pytest.approx(1, rel=1e-4) and cosine == pytest.approx(1, abs=1e-4)
    value, cosine = _rounding(moved(1e-4), before, torch.bfloat16)
    assert abs(value - 1) > 0.5 or cosine < 0.9


def test_wrong_requests_are_one_sentence(workspace: Path, tmp_path: Path) -> None:
    bench: list[str | Path] = ["bench", "proximal", "--workspace", workspace]
    assert_one_sentence(peso(*bench, "--rank", "0"), "adapter.r", "greater than or equal to 1")
    other = tmp_path / "other.toml"
    other.write_text('[backbone]\nsource = "some/model"\n')
    assert_one_sentence(peso(*bench, "--config", other, "--width", "8"), "--width 8", "some/model")
    assert_one_sentence(peso("bench", "proximal", "--workspace", tmp_path / "none"), "none")
