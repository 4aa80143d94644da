"""Passes that leave out events: fewer items in histories, never another order, the same in every life of a run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.config import make_config
from peso.data.dataset import Dataset
from peso.data.examples import targets_of_block
from peso.errors import ConfigError
from peso.files import read_json
from peso.lm.likelihood import CodeLikelihood
from peso.training.item_dropout import without_some_items
from peso.training.stage import Stage
from peso.training.stream import run_stream
from peso.training.trainer import train_stage
from peso.types import TemplateName
from stages import BLOCK, MAX_HISTORY, stage_and_model
from streams import SMALL, config, fill
from worlds import tiny_backbone, tiny_builder, tiny_codes


def stage_of(share: float, template: TemplateName = "sid") -> Stage:
    return stage_and_model(share, template)[0]


SID, INSTRUCT = stage_of(0.3), stage_of(0.3, "instruct")


def with_share(stage: Stage, share: float, seed: int = 0) -> Stage:
    return replace(stage, training=stage.training.model_copy(update={"item_dropout": share}), seed=seed)


def events_of(dataset: Dataset) -> list[tuple[int, int, int]]:
    return list(
        zip(dataset.event_user.tolist(), dataset.event_item.tolist(), dataset.event_block.tolist(), strict=True)
    )


def is_subsequence(short: list[Any], long: list[Any]) -> bool:
    rest = iter(long)
    return all(any(entry == other for other in rest) for entry in short)


def test_without_dropout_everything_is_shown() -> None:
    whole = with_share(SID, 0.0)
    assert without_some_items(whole, 0) is whole


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.05, 0.95), epoch=st.integers(0, 5), seed=st.integers(0, 3))
def test_what_is_left_keeps_its_order_and_every_target_its_own_last_items(share: float, epoch: int, seed: int) -> None:
    stage = with_share(SID, share, seed)
    shown = without_some_items(stage, epoch)
    before, left, rows = stage.builder.dataset, shown.builder.dataset, shown.train_rows
    assert is_subsequence(events_of(left), events_of(before))
    targets = rows.targets
    trained = targets_of_block(before, BLOCK, "train")
    trained_pairs = {(int(before.event_user[e]), int(before.event_item[e])) for e in trained}
    assert 1 <= len(targets) <= len(trained)
    assert {(int(left.event_user[e]), int(left.event_item[e])) for e in targets} <= trained_pairs
    assert (left.event_block[targets] == BLOCK).all()
    starts = left.user_offsets[left.event_user[rows.first_target]]
    assert (rows.start == np.maximum(starts, rows.first_target - MAX_HISTORY)).all()
    assert (left.event_user[rows.start] == left.event_user[rows.end - 1]).all()


@pytest.mark.parametrize("stage", [SID, INSTRUCT])
def test_a_batch_is_that_of_the_events_left(stage: Stage) -> None:
    """Tokens and answers are those of a builder that never saw what was left out."""
    shown = without_some_items(stage, 0)
    tokenizer = tiny_backbone()[1]
    template: TemplateName = "sid" if stage is SID else "instruct"
    fresh, _ = tiny_builder(tokenizer, shown.builder.dataset, tiny_codes(), template)
    batch, expected = shown.builder.batch(shown.train_rows), fresh.batch(shown.train_rows)
    assert torch.equal(batch.input_ids, expected.input_ids) and torch.equal(batch.codes, expected.codes)
    assert len(batch.codes) < len(targets_of_block(stage.builder.dataset, BLOCK, "train"))


def test_passes_differ_and_a_pass_is_the_same_every_time() -> None:
    first, again, second = (without_some_items(SID, epoch).builder.dataset for epoch in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != second.fingerprint
    share_left = first.num_events / SID.builder.dataset.num_events
    assert share_left == pytest.approx(0.7, abs=0.1)


def test_every_target_is_shown_in_some_pass() -> None:
    found: set[tuple[int, int]] = set()
    for epoch in range(12):
        shown = without_some_items(SID, epoch)
        found |= targets_shown(shown)
    assert found == targets_shown(SID)


def targets_shown(stage: Stage) -> set[tuple[int, int]]:
    """Users and items of a stage's training targets."""
    dataset, events = stage.builder.dataset, stage.train_rows.targets
    return set(zip(dataset.event_user[events].tolist(), dataset.event_item[events].tolist(), strict=True))


def test_a_stopped_stage_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    def trained(stops: list[int | None], checkpoint: Path) -> tuple[torch.Tensor, list[float]]:
        stage, model = stage_and_model(0.4)
        likelihood = CodeLikelihood(stage.builder.vocabulary, "level")
        for until in stops:
            records, _ = train_stage(model, likelihood, stage, checkpoint, until)
        return torch.cat([part.snapshot() for part in stage.parts.values()]), [one.train_loss for one in records]

    whole, losses = trained([None], tmp_path / "whole.safetensors")
    stopped, their_losses = trained([1, None], tmp_path / "stopped.safetensors")
    assert torch.equal(whole, stopped) and losses == their_losses


def test_a_run_is_of_its_dropout(tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {"plain": {}, "dropout": {"item_dropout": 0.4}}
    runs = {}
    for name, changed in kinds.items():
        training = SMALL["training"] | {"epochs": 1} | changed
        settings = config(method="peso", training=training, evaluation={"next_block": "off"})
        runs[name] = run_stream(fill(tmp_path / name), settings)
    results = {name: read_json(run / "result.json", "result") for name, run in runs.items()}
    assert runs["plain"].name != runs["dropout"].name
    assert results["plain"]["base"]["id"] != results["dropout"]["base"]["id"]
    assert "item_dropout" not in results["plain"]["config"]["training"]
    assert results["dropout"]["config"]["training"]["item_dropout"] == 0.4


def test_everything_cannot_be_left_out() -> None:
    with pytest.raises(ConfigError, match=r"training\.item_dropout: .*less than 1"):
        make_config(None, {"training": {"item_dropout": 1.0}})
