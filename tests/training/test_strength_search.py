"""The strength that a block chooses: never a worse fit than without an anchor, and the same after an interruption."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from peso.errors import ConfigError
from peso.files import read_json
from peso.training.stream import run_stream
from peso.training.trainer import train_stage
from streams import SMALL, config, fill

AUTO: dict[str, Any] = {
    "method": "peso",
    "proximal": {"strength": "auto"},
    "training": SMALL["training"] | {"epochs": 3},
    "evaluation": {"next_block": "off"},
}
CANDIDATES = [0.0, 1.0, 3.0, 9.0, 30.0]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def chosen(workspace: Path) -> Path:
    return run_stream(workspace, config(**AUTO))


def trials_of(folder: Path, block: int) -> dict[float, dict[str, Any]]:
    result = read_json(folder / "result.json", "result")
    return {trial["strength"]: trial for trial in result["strengths"] if trial["block"] == block}


def least_loss(folder: Path, block: int) -> float:
    training = read_json(folder / "result.json", "result")["training"]
    return min(epoch["valid_loss"] for epoch in training if epoch["block"] == block)


def adapter_of(folder: Path, block: int) -> dict[str, Any]:
    return load_file(folder / "adapters" / f"block_{block}" / "adapter_model.safetensors")


def test_the_record_says_what_was_tried_and_why_it_was_kept(chosen: Path) -> None:
    result = read_json(chosen / "result.json", "result")
    for block in (1, 2):
        trials = trials_of(chosen, block)
        assert sorted(trials) == CANDIDATES
        (kept,) = (trial for trial in trials.values() if trial["selected"])
        assert kept["valid_loss"] == min(trial["valid_loss"] for trial in trials.values()) == least_loss(chosen, block)
        assert result["blocks"][block - 1]["proximal_strength"] == kept["strength"]
        assert trials[0.0]["epochs"] == 3
        assert sum(trial["epochs"] for trial in trials.values()) < 3 * len(CANDIDATES)
        assert result["blocks"][block - 1]["train_seconds"] == sum(trial["seconds"] for trial in trials.values())


def test_it_is_never_worse_on_validation_than_no_anchor(workspace: Path, chosen: Path) -> None:
    single = run_stream(workspace, config(**AUTO | {"method": "single", "proximal": {}}))
    assert trials_of(chosen, 1)[0.0]["valid_loss"] == least_loss(single, 1)
    assert least_loss(chosen, 1) <= least_loss(single, 1)


def test_the_block_is_what_the_kept_strength_gives_alone(workspace: Path, chosen: Path) -> None:
    (kept,) = (strength for strength, trial in trials_of(chosen, 1).items() if trial["selected"])
    alone = run_stream(workspace, config(**AUTO | {"proximal": {"strength": kept}}))
    ours, theirs = adapter_of(chosen, 1), adapter_of(alone, 1)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)


@pytest.mark.parametrize("calls_before", [3, 7])
def test_an_interrupted_search_ends_alike(
    tmp_path: Path, chosen: Path, monkeypatch: pytest.MonkeyPatch, calls_before: int
) -> None:
    workspace, calls = fill(tmp_path), iter(range(calls_before))

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return train_stage(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr("peso.training.strength_search.train_stage", dying)
        with pytest.raises(KeyboardInterrupt):
            run_stream(workspace, config(**AUTO))
    folder = run_stream(workspace, config(**AUTO), resume=True)
    assert not list(folder.glob("checkpoint*"))
    for block in (1, 2):
        ours, theirs = adapter_of(folder, block), adapter_of(chosen, block)
        assert all((ours[name] == theirs[name]).all() for name in ours)


def test_a_strength_is_a_number_or_auto() -> None:
    with pytest.raises(ConfigError, match=r"proximal\.strength"):
        config(proximal={"strength": "strong"})
    assert config(proximal={"strength": "2.5"}).proximal.strength == 2.5
