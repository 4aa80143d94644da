"""The study of directions: shares by hand, gradients against autograd of the whole adapter, a whole run."""

import math
from pathlib import Path

import pytest
import torch

from peso.data.examples import targets_of_block
from peso.experiments.results import RunRecord
from peso.files import read_json
from peso.lm.rows import one_target_per_row
from peso.methods.theory import Shares
from peso.studies.adapter_directions import adapter_after, directions_after
from peso.studies.directions import NUM_BINS, PULL, STRENGTHS, binned_shares
from peso.studies.registry import run_study
from peso.training.base import LORA, adapter_parts, load_base, read_base
from peso.training.materials import load_materials
from peso.training.stream import run_stream
from streams import SMALL, config, fill


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("directions") / "world", num_users=30)


def test_shares_of_bins_are_slopes() -> None:
    generator = torch.Generator().manual_seed(0)
    distance = torch.randn(3 * NUM_BINS, generator=generator, dtype=torch.float64)
    share = torch.arange(NUM_BINS, dtype=torch.float64).repeat_interleave(3) / 10
    shares = Shares(share, share, distance, share * distance, 0.0)
    assert binned_shares(shares) == pytest.approx([number / 10 for number in range(NUM_BINS)])


def test_directions_explain_the_gradients_of_the_targets(workspace: Path) -> None:
    folder = run_stream(workspace, config(method="single", memory={"use": False}))
    run = RunRecord(folder, read_json(folder / "result.json", "result"))
    pairs, metric = directions_after(workspace, run, 0)

    materials = load_materials(workspace, config(method="single", memory={"use": False}))
    model, reader = load_base(materials, read_base(materials, workspace / "bases"))
    lora = adapter_parts(model)[LORA]
    targets = targets_of_block(materials.dataset, 1, "train")
    gram = torch.zeros(lora.data.numel(), lora.data.numel(), dtype=torch.float64)
    for target in targets:
        rows = one_target_per_row(materials.dataset, target[None], materials.config.max_history)
        lora.gradient.zero_()
        reader.likelihood.negative_log_likelihood(reader.model, reader.builder.batch(rows)).sum().backward()
        gram += torch.outer(lora.gradient.double(), lora.gradient.double())
    gram /= len(targets) * reader.builder.vocabulary.num_levels
    assert torch.equal(adapter_after(workspace, run, 0), lora.snapshot().double())
    largest = pairs.values[0]
    residual = gram @ pairs.vectors - metric.apply(pairs.vectors) * pairs.values
    assert residual.abs().max() < 1e-3 * largest * metric.apply(pairs.vectors).abs().max()
    near = pairs.vectors.T @ metric.apply(pairs.vectors)
    assert torch.allclose(near, torch.eye(len(near), dtype=torch.float64), atol=1e-5)


def test_the_study_runs_and_a_stronger_anchor_goes_less_far(workspace: Path, tmp_path: Path) -> None:
    lines = [
        line
        for section, values in SMALL.items()
        for line in (f"[{section}]", *(f"{key} = {value}" for key, value in values.items()))
    ]
    (tmp_path / "small.toml").write_text("\n".join(lines))
    record = run_study("directions", workspace, 1, tmp_path / "results", tmp_path / "small.toml")
    shares = record["facts"]["shares"]
    assert list(shares) == [*(f"peso, normalised {strength:g}" for strength in STRENGTHS), PULL]
    assert shares[PULL]["predicted"] is None
    assert all(math.isfinite(value) for curve in shares.values() for value in curve["measured"])
    weak, strong = (shares[f"peso, normalised {strength:g}"] for strength in (STRENGTHS[0], STRENGTHS[-1]))
    assert all(a > b for a, b in zip(weak["predicted"], strong["predicted"], strict=True))
    assert sum(weak["measured"]) > sum(strong["measured"])
    for curve in (weak, strong):
        assert curve["predicted"] == sorted(curve["predicted"], reverse=True)
    assert (tmp_path / "results" / "directions.svg").read_text().startswith("<svg")
