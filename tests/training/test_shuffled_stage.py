"""Training in other orders: another one each pass, the same in every life of a stage, and validation never."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest import MonkeyPatch
from transformers import PreTrainedModel

from peso.config import AdapterConfig, TrainingConfig, make_config
from peso.data.examples import targets_of_block
from peso.errors import ConfigError
from peso.files import read_json
from peso.lm.adapters import attach_adapter
from peso.lm.likelihood import CodeLikelihood
from peso.lm.rows import Rows, many_targets_per_row, one_target_per_row
from peso.lm.sequences import Batch, SequenceBuilder
from peso.training.base import adapter_parts
from peso.training.stage import Stage
from peso.training.stream import run_stream
from peso.training.trainer import train_stage
from streams import config, fill
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset

MAX_HISTORY = 4
BLOCK = 1


def stage_and_model(shuffled_share: float) -> tuple[Stage, PreTrainedModel]:
    dataset = tiny_dataset()
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, dataset, tiny_codes(), "sid")
    parts = adapter_parts(attach_adapter(model, AdapterConfig(r=4, lora_alpha=8), vocabulary.all_token_ids, seed=0))
    rows = many_targets_per_row(dataset, targets_of_block(dataset, BLOCK, "train"), MAX_HISTORY, 3)
    valid_rows = one_target_per_row(dataset, targets_of_block(dataset, BLOCK, "valid"), MAX_HISTORY)
    stage = Stage(
        name="test", key="", block=BLOCK, parts=parts, builder=builder, train_rows=rows, valid_rows=valid_rows,
        epochs=2, learning_rates=dict.fromkeys(parts, 1e-3), batch_targets=256, weight_decay=0.0,
        training=TrainingConfig(targets_per_row=3), seed=0,
        shuffled_share=shuffled_share,
    )  # fmt: skip
    return stage, model


def trained(share: float, checkpoint: Path, stops: Sequence[int | None] = (None,)) -> tuple[torch.Tensor, list[float]]:
    stage, model = stage_and_model(shuffled_share=share)
    likelihood = CodeLikelihood(stage.builder.vocabulary, "level")
    for until in stops:
        records, _ = train_stage(model, likelihood, stage, checkpoint, until)
    return torch.cat([part.snapshot() for part in stage.parts.values()]), [record.train_loss for record in records]


def test_a_stopped_stage_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    whole, losses = trained(1.0, tmp_path / "whole.safetensors")
    stopped, their_losses = trained(1.0, tmp_path / "stopped.safetensors", (1, None))
    in_order, _ = trained(0.0, tmp_path / "order.safetensors")
    assert torch.equal(whole, stopped) and losses == their_losses
    assert not torch.equal(whole, in_order)


def test_passes_show_other_orders_and_validation_the_real_one(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    """What the model reads: the same tokens in every pass, elsewhere; validated on is what happened."""
    stage, model = stage_and_model(shuffled_share=1.0)
    real = stage.builder.dataset
    shown: list[np.ndarray] = []
    write = SequenceBuilder.batch

    def watched(self: SequenceBuilder, rows: Rows, line_tokens: int = 0) -> Batch:
        if model.training:
            shown.append(self.dataset.event_item)
        else:
            assert self.dataset is real
        return write(self, rows, line_tokens)

    monkeypatch.setattr(SequenceBuilder, "batch", watched)
    train_stage(model, CodeLikelihood(stage.builder.vocabulary, "level"), stage, tmp_path / "stage.safetensors")
    orders = {items.tobytes() for items in shown}
    assert len(orders) == stage.epochs and real.event_item.tobytes() not in orders
    assert all((np.sort(items) == np.sort(real.event_item)).all() for items in shown)


def test_a_run_is_of_its_share_and_says_which_it_was(tmp_path: Path) -> None:
    runs = {}
    for share in (0.0, 0.5):
        training = {"epochs": 1, "shuffled_share": share}
        settings = config(method="peso", training=training, evaluation={"next_block": "off"})
        runs[share] = run_stream(fill(tmp_path / str(share)), settings)
    results = {share: read_json(run / "result.json", "result") for share, run in runs.items()}
    assert all(result["shuffled_share"] == share for share, result in results.items())
    assert len({run.name for run in runs.values()}) == len({result["base"]["id"] for result in results.values()}) == 2


def test_presets_of_language_models_read_in_order() -> None:
    for preset in ("paper", "default_llm"):
        assert make_config(Path(preset)).training.shuffled_share == 0.0


@pytest.mark.parametrize("share", [1.1, -0.1, "often"])
def test_other_shares_are_refused(share: float | str) -> None:
    with pytest.raises(ConfigError, match=r"training\.shuffled_share"):
        make_config(None, {"training": {"shuffled_share": share}})
