"""The strength, or the rates, that a block chooses: what is tried, what is kept, and the same after an interruption."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from peso.errors import ConfigError
from peso.files import read_json
from peso.training.search import passes_over_block
from peso.training.stream import run_stream
from peso.training.trainer import train_stage
from streams import config, fill

AUTO: dict[str, Any] = {
    "method": "peso",
    "proximal": {"strength": "auto"},
    "training": {"epochs": 3},
    "evaluation": {"next_block": "off"},
}
CANDIDATES = [0.0, 1.0, 3.0, 9.0, 30.0]
FACTORS = [0.5, 0.25, 4.0]
BOTH: dict[str, Any] = AUTO | {"training": AUTO["training"] | {"rate_factors": FACTORS}}
RATES: dict[str, Any] = AUTO | {"proximal": {}, "training": AUTO["training"] | {"rate_factors": FACTORS}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def chosen(workspace: Path) -> Path:
    return run_stream(workspace, config(**AUTO))


def trials_of(folder: Path, block: int) -> dict[float, dict[str, Any]]:
    result = read_json(folder / "result.json", "result")
    return {trial["strength"]: trial for trial in result["strengths"] if trial["block"] == block}


def of_block(trials: list[dict[str, Any]], block: int) -> list[dict[str, Any]]:
    return [trial for trial in trials if trial["block"] == block]


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


@pytest.fixture(scope="module")
def both(workspace: Path) -> Path:
    return run_stream(workspace, config(**BOTH))


def test_a_strength_is_chosen_at_rates_that_single_would_choose_or_better(workspace: Path, both: Path) -> None:
    single = run_stream(workspace, config(**BOTH | {"method": "single", "proximal": {}}))
    result = read_json(both / "result.json", "result")
    free = {trial["rate_factor"]: trial for trial in of_block(result["rates"], 1) if trial["strength"] == 0}
    rates_of_single = of_block(read_json(single / "result.json", "result")["rates"], 1)
    assert {one["rate_factor"]: one["valid_loss"] for one in rates_of_single} == {
        factor: trial["valid_loss"] for factor, trial in free.items()
    }
    assert least_loss(both, 1) <= least_loss(single, 1)
    for block in (1, 2):
        rates, strengths = of_block(result["rates"], block), of_block(result["strengths"], block)
        (rate,) = (trial for trial in rates if trial["selected"])
        (strength,) = (trial for trial in strengths if trial["selected"])
        assert rate["strength"] == strength["strength"]
        assert rate["valid_loss"] == least_loss(both, block) <= strength["valid_loss"]
        start = min((one for one in rates if one["strength"] == 0), key=lambda one: one["valid_loss"])
        assert {trial["rate_factor"] for trial in strengths} == {start["rate_factor"]}
        trained = {(one["strength"], one["rate_factor"]): one["seconds"] for one in [*strengths, *rates]}
        assert result["blocks"][block - 1]["train_seconds"] == pytest.approx(sum(trained.values()))


@pytest.fixture(scope="module")
def paced(workspace: Path) -> Path:
    return run_stream(workspace, config(**RATES))


def test_rates_are_tried_and_the_best_kept(workspace: Path, paced: Path) -> None:
    result = read_json(paced / "result.json", "result")
    assert result["strengths"] == []
    for block in (1, 2):
        trials = {trial["rate_factor"]: trial for trial in result["rates"] if trial["block"] == block}
        assert next(iter(trials)) == FACTORS[0] and trials[FACTORS[0]]["epochs"] == 3
        assert len(trials) > 1
        (kept,) = (trial for trial in trials.values() if trial["selected"])
        assert kept["valid_loss"] == min(trial["valid_loss"] for trial in trials.values()) == least_loss(paced, block)
        summary = result["blocks"][block - 1]
        assert summary["rate_factor"] == kept["rate_factor"]
        assert summary["train_seconds"] == sum(trial["seconds"] for trial in trials.values())


def test_the_block_is_what_the_kept_rate_gives_alone(workspace: Path, paced: Path) -> None:
    (kept,) = {
        trial["rate_factor"]
        for trial in read_json(paced / "result.json", "result")["rates"]
        if trial["block"] == 1 and trial["selected"]
    }
    training = AUTO["training"]
    usual = config(**RATES).training
    for of_factor in (
        {"rate_factors": [kept]},
        {
            "rate_factors": [1.0],
            "learning_rate": kept * usual.learning_rate,
            "token_rows_learning_rate": kept * usual.token_rows_learning_rate,
        },
    ):
        alone = run_stream(workspace, config(**RATES | {"training": training | of_factor}))
        assert read_json(alone / "result.json", "result")["rates"] == []
        ours, theirs = adapter_of(paced, 1), adapter_of(alone, 1)
        assert all((ours[name] == theirs[name]).all() for name in ours)


def test_rates_of_all_weights_are_chosen_as_well(workspace: Path) -> None:
    full = run_stream(workspace, config(**RATES | {"method": "full"}))
    rates = read_json(full / "result.json", "result")["rates"]
    tried = [trial["rate_factor"] for trial in rates if trial["block"] == 1]
    assert tried[0] == FACTORS[0] and len(tried) > 1


@pytest.mark.parametrize(
    ("num_rates", "num_strengths", "passes"), [(5, 0, 18), (2, 0, 12), (1, 0, 6), (1, 5, 18), (5, 5, 18 + 2 * 12)]
)
def test_passes_by_hand(num_rates: int, num_strengths: int, passes: int) -> None:
    # A start and both neighbours; 5 + 4 + 3 + 2 + 2 + 2, strength 0 beside the best one; both, and neighbours again.
    assert passes_over_block(num_rates, num_strengths, 6) == passes


@pytest.mark.parametrize("calls_before", [3, 7])
@pytest.mark.parametrize("searched", ["strengths", "rates", "both"])
def test_an_interrupted_search_ends_alike(
    tmp_path: Path, chosen: Path, paced: Path, both: Path, monkeypatch: pytest.MonkeyPatch, calls_before: int,
    searched: str,
) -> None:  # fmt: skip
    workspace, calls = fill(tmp_path), iter(range(calls_before))
    whole, overrides = {"strengths": (chosen, AUTO), "rates": (paced, RATES), "both": (both, BOTH)}[searched]

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return train_stage(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr("peso.training.candidates.train_stage", dying)
        with pytest.raises(KeyboardInterrupt):
            run_stream(workspace, config(**overrides))
    folder = run_stream(workspace, config(**overrides), resume=True)
    assert not list(folder.glob("checkpoint*"))
    for block in (1, 2):
        ours, theirs = adapter_of(folder, block), adapter_of(whole, block)
        assert all((ours[name] == theirs[name]).all() for name in ours)


def test_a_strength_is_a_number_or_auto() -> None:
    with pytest.raises(ConfigError, match=r"proximal\.strength"):
        config(proximal={"strength": "strong"})
    assert config(proximal={"strength": "2.5"}).proximal.strength == 2.5
