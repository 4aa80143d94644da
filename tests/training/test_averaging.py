"""Versions between the previous one and where training ends."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from peso.config import make_config
from peso.errors import ConfigError
from peso.files import read_json
from peso.lm.adapters import carried_of
from peso.lm.backbone import load_weights
from peso.lm.parameters import FlatParameters
from peso.training.averaging import FIRST_SHARE, SHARES, averaged, best_share
from peso.training.stage import Stage
from peso.training.stream import run_stream
from peso.training.trainer import train_stage
from streams import config, fill

ONE_EPOCH: dict[str, Any] = {
    "training": {"epochs": 1},
    "evaluation": {"next_block": "off"},
}
FULL_RATE = 1e-3


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("world"))


def peso(share: float | str, strength: float = 3.0, lead: float = 0.0) -> dict[str, Any]:
    return {"method": "peso", "proximal": {"strength": strength, "share": share, "lead": lead}}


def full(share: float | str) -> dict[str, Any]:
    return {"method": "full", "full": {"learning_rate": FULL_RATE, "share": share}}


def run(workspace: Path, **overrides: Any) -> Path:
    return run_stream(workspace, config(**ONE_EPOCH | overrides), resume=True)


def weights(folder: Path, block: int) -> dict[str, Tensor]:
    (file,) = (folder / "adapters" / f"block_{block}").rglob("*model.safetensors")
    return load_file(file)


def recommends(folder: Path, block: int) -> dict[str, Tensor]:
    return load_file(folder / "adapters" / f"block_{block}" / "adapter_model.safetensors")


def carried(folder: Path, block: int) -> dict[str, Tensor]:
    return load_file(carried_of(folder / "adapters" / f"block_{block}") / "adapter_model.safetensors")


def epochs(folder: Path, block: int) -> list[dict[str, Any]]:
    training = read_json(folder / "result.json", "result")["training"]
    return [epoch for epoch in training if epoch["block"] == block]


def test_the_mean_is_the_proximal_operator_and_what_was_trained_returns() -> None:
    torch.manual_seed(0)
    part = FlatParameters([("weight", nn.Parameter(torch.randn(5, 3)))])
    start = part.snapshot()
    trained = torch.randn(15)
    part.restore(trained)
    share = 0.7
    with averaged({"all": part}, {"all": start}, share):
        inside = part.snapshot()
    assert torch.equal(part.snapshot(), trained)
    v = inside.double().requires_grad_()
    c = 1 / share - 1
    objective = (v - trained.double()).square().sum() / 2 + c / 2 * (v - start.double()).square().sum()
    (gradient,) = torch.autograd.grad(objective, v)
    assert float(gradient.abs().max()) < 1e-6


def test_share_1_reads_no_start_and_changes_nothing() -> None:
    part = FlatParameters([("weight", nn.Parameter(torch.randn(4)))])
    before = part.snapshot()
    with averaged({"all": part}, {}, 1.0):
        assert torch.equal(part.snapshot(), before)


@given(st.floats(0.0, 1.3), st.floats(0.1, 10.0))
def test_the_climb_ends_at_the_least_loss_of_a_convex_curve(best: float, curvature: float) -> None:
    asked: list[float] = []

    def loss_at(share: float) -> float:
        asked.append(share)
        return curvature * (share - best) ** 2

    share, loss = best_share(loss_at, FIRST_SHARE, loss_at(FIRST_SHARE))
    least = min(curvature * (one - best) ** 2 for one in SHARES)
    assert loss == pytest.approx(least, abs=1e-12) and loss == curvature * (share - best) ** 2
    assert len(asked) == len(set(asked)) <= len(SHARES)
    if abs(best - FIRST_SHARE) < 0.04:
        assert len(asked) == 3


def test_a_version_is_between_the_one_before_and_where_training_ends(workspace: Path) -> None:
    whole, half = run(workspace, **peso(1.0)), run(workspace, **peso(0.5))
    before, after, between = weights(whole, 0), weights(whole, 1), weights(half, 1)
    for name, ends in after.items():
        torch.testing.assert_close(between[name], (before[name] + ends) / 2, rtol=0, atol=1e-6)
    assert any(not torch.equal(before[name], after[name]) for name in after)
    # The next block goes on from the version, not from where training ended.
    assert epochs(whole, 1)[0]["train_loss"] == epochs(half, 1)[0]["train_loss"]
    assert epochs(whole, 2)[0]["train_loss"] != epochs(half, 2)[0]["train_loss"]


@pytest.mark.parametrize("lead", [0.5, 1.0])
def test_what_recommends_is_ahead_of_what_the_next_block_starts_from(workspace: Path, lead: float) -> None:
    kept, ahead = run(workspace, **peso(0.5)), run(workspace, **peso(0.5, lead=lead))
    whole = run(workspace, **peso(1.0))
    for name, ends in recommends(whole, 1).items():
        wanted = recommends(kept, 1)[name].lerp(ends, lead)
        torch.testing.assert_close(recommends(ahead, 1)[name], wanted, rtol=0, atol=1e-6)
    for block in (1, 2):  # training does not know of the lead
        for name, values in recommends(kept, block).items():
            assert torch.equal(carried(ahead, block)[name], values)
        assert epochs(ahead, block)[0]["valid_loss"] == epochs(kept, block)[0]["valid_loss"]
    result = read_json(ahead / "result.json", "result")
    assert result["carried_bytes"] == result["adapter_bytes"]
    first = result["blocks"][0]
    assert (first["proximal_share"], first["served_share"]) == (0.5, 0.5 + lead / 2)
    assert first["log_likelihood"] != read_json(kept / "result.json", "result")["blocks"][0]["log_likelihood"]
    PeftModel.from_pretrained(
        load_weights(next((workspace / "bases").iterdir()) / "backbone"),
        str(ahead / "adapters" / "block_2" / "carried"),
    )


def test_without_a_share_there_is_no_lead(workspace: Path) -> None:
    folder = run(workspace, **peso(1.0, lead=0.5))
    assert not list((folder / "adapters").rglob("carried"))
    result = read_json(folder / "result.json", "result")
    assert "served_share" not in result["blocks"][0] and result["carried_bytes"] == 0


@pytest.mark.parametrize("lead", [-0.1, 1.1, "far"])
def test_a_lead_is_from_0_to_1(lead: float | str) -> None:
    with pytest.raises(ConfigError, match=r"proximal\.lead"):
        make_config(None, {"proximal": {"lead": lead}})


def test_full_fine_tuning_is_averaged_weight_by_weight(workspace: Path) -> None:
    whole, half, quarter = (weights(run(workspace, **full(share)), 1) for share in (1.0, 0.5, 0.25))
    for name, ends in whole.items():
        torch.testing.assert_close(ends - half[name], 2 * (half[name] - quarter[name]), rtol=0, atol=1e-5)


def test_the_chosen_share_has_the_least_loss_of_its_neighbours(workspace: Path) -> None:
    folder = run(workspace, **peso("auto"))
    (last,) = epochs(folder, 1)
    assert last["share"] in SHARES
    place = SHARES.index(last["share"])
    for share in SHARES[max(0, place - 1) : place + 2]:
        (epoch,) = epochs(run(workspace, **peso(share)), 1)
        assert epoch["share"] == share
        assert epoch["valid_loss"] >= last["valid_loss"] - 1e-9
    block = read_json(folder / "result.json", "result")["blocks"][0]
    assert block.get("proximal_share", 1.0) == last["share"]
    fixed = run(workspace, **peso(last["share"]))
    assert all(torch.equal(one, weights(fixed, 1)[name]) for name, one in weights(folder, 1).items())


def test_an_interrupted_block_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = peso("auto", lead=0.5) | {
        "training": {"epochs": 3},
        "evaluation": {"next_block": "off"},
    }
    wanted = run_stream(fill(tmp_path / "whole"), config(**overrides))
    workspace = fill(tmp_path / "interrupted")

    def dying(model: Any, likelihood: Any, stage: Stage, checkpoint: Path) -> Any:
        if stage.name == "block_1":
            train_stage(model, likelihood, stage, checkpoint, until=2)
            raise KeyboardInterrupt
        return train_stage(model, likelihood, stage, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr("peso.training.search.train_stage", dying)
        with pytest.raises(KeyboardInterrupt):
            run_stream(workspace, config(**overrides))
    folder = run_stream(workspace, config(**overrides), resume=True)
    for block in (1, 2):
        for of in (recommends, carried):
            assert all(torch.equal(one, of(wanted, block)[name]) for name, one in of(folder, block).items())


def test_defaults_follow_form_and_strength() -> None:
    def share_of(**proximal: Any) -> float | str | None:
        return make_config(None, {"proximal": proximal}).proximal.share

    assert share_of() == share_of(strength=1.0) == share_of(strength="auto") == "auto"
    assert share_of(strength=0.0) == share_of(form="paper") == share_of(form="l2", strength=0.1) == 1.0
    assert share_of(strength=0.0, share=0.7) == share_of(form="paper", share=0.7) == 0.7


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, "some", "nan"])
def test_a_share_is_above_0_and_at_most_1_or_auto(share: float | str) -> None:
    for section in ("proximal", "full"):
        with pytest.raises(ConfigError, match=rf"{section}\.share"):
            make_config(None, {section: {"share": share}})
