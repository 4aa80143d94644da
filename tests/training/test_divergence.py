"""A training whose loss is no number any more ends in a sentence, and leaves nothing that a later run trips over."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from peso.errors import TrainingError
from peso.files import read_json
from peso.training.epochs import EpochRecord, kept_epoch, refuse_divergence
from peso.training.optimisation import FlatOptimizer
from peso.training.stream import run_stream
from streams import SMALL, config
from worlds import fill_workspace, tiny_dataset

TOO_FAST = 1e30


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    fill_workspace(tmp_path, tiny_dataset())
    return tmp_path


def test_an_update_that_diverges_names_block_step_and_rate(workspace: Path) -> None:
    with pytest.raises(TrainingError) as raised:
        run_stream(workspace, config(training={"learning_rate": TOO_FAST}))
    said = str(raised.value)
    assert said.startswith("block 1, stage block_1, epoch 1 of 2")
    assert "has diverged with training.learning_rate = 1e+30 and training.token_rows_learning_rate = 0.001" in said
    assert said.endswith("lower the learning rate and run again.")
    left = [path.name for path in (workspace / "runs").glob("*/adapters/*")]
    assert left == ["block_0"]
    assert not [path for path in workspace.rglob(".tmp-*")]

    folder = run_stream(workspace, config(), resume=True)
    result = read_json(folder / "result.json", "result")
    assert result["base"]["reused"]
    assert all(math.isfinite(epoch["valid_loss"]) for epoch in result["training"])


@pytest.mark.parametrize(
    ("overrides", "key", "stage"),
    [
        ({"training": {"base_learning_rate": TOO_FAST}}, "training.base_learning_rate", "base_adapter"),
        ({"backbone": SMALL["backbone"] | {"learning_rate": TOO_FAST}}, "backbone.learning_rate", "base_backbone"),
    ],
)
def test_a_base_that_diverges_is_not_kept(workspace: Path, overrides: dict[str, Any], key: str, stage: str) -> None:
    for is_resumed in (False, True):
        with pytest.raises(TrainingError, match=rf"^block 0, stage {stage}, epoch 1 .* with {key} = 1e\+30; lower"):
            run_stream(workspace, config(**overrides), resume=is_resumed)
    assert not list((workspace / "bases").glob("*/base.json"))
    run_stream(workspace, config())


def test_weights_that_diverge_in_the_last_step_are_noticed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every loss was still a number, and no validation target tells."""
    run_stream(workspace, config(method="frozen"))
    step = FlatOptimizer.step

    def spoiling(optimizer: FlatOptimizer) -> None:
        step(optimizer)
        next(iter(optimizer.parts.values())).data.data[0] = torch.inf

    monkeypatch.setattr(FlatOptimizer, "step", spoiling)
    monkeypatch.setattr("peso.training.trainer.mean_loss", lambda *_: 1.0)
    slow = {"batch_targets": 10_000, "learning_rate": 1e-9, "token_rows_learning_rate": 1e-9}
    with pytest.raises(TrainingError, match=r"^block 1, stage block_1, epoch 1 of 2: the largest weight is (inf|nan)"):
        run_stream(workspace, config(method="single", training=slow))


def test_a_validation_loss_that_is_no_number_ends_training(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peso.training.trainer.mean_loss", lambda *_: math.nan)
    with pytest.raises(TrainingError, match="epoch 1 of 2: the validation loss is nan"):
        run_stream(workspace, config())


def test_the_kept_epoch() -> None:
    def records(*losses: float | None) -> list[EpochRecord]:
        return [EpochRecord(1, number, 1.0, loss, None, 1.0) for number, loss in enumerate(losses, start=1)]

    assert kept_epoch(records(3.0, 2.0, 2.0, 4.0)) == 2
    assert kept_epoch(records(None, None, None)) == 3
    refuse_divergence(1e30, "the loss", "here", {"rate": 1.0})
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(TrainingError, match=r"^here: the loss is"):
            refuse_divergence(value, "the loss", "here", {"rate": 1.0})
