"""A whole run on a small world: resumable to the bit, and what the proximal term does to it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from commands import begin
from peso.config import dump_config
from peso.errors import WorkspaceError
from peso.files import read_json
from peso.lm.backbone import load_weights
from peso.training.recommending import recommend_for_user
from peso.training.stream import run_stream
from processes import wait_for
from streams import SMALL, config, fill


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def runs(workspace: Path) -> dict[str, Path]:
    return {method: run_stream(workspace, config(method=method)) for method in ("frozen", "single", "peso")}


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = read_json(folder / "result.json", "result")
    return result


def numbers_of(folder: Path) -> dict[str, Any]:
    """A result without what the clock decides."""
    result = result_of(folder)
    for block in [*result["blocks"], *result["next_block"]]:
        block.pop("train_seconds", None)
        block.pop("test_seconds")
    for epoch in result["training"]:
        epoch.pop("seconds")
    for key in ("base", "peak_rss_bytes"):
        result.pop(key)
    return result


def weights_of(folder: Path) -> list[dict[str, Any]]:
    return [load_file(folder / "adapters" / f"block_{block}" / "adapter_model.safetensors") for block in range(3)]


def test_a_result_says_everything(runs: dict[str, Path]) -> None:
    result = result_of(runs["peso"])
    assert [block["block"] for block in result["blocks"]] == [1, 2]
    assert [(entry["model_block"], entry["block"]) for entry in result["next_block"]] == [(0, 1), (1, 2)]
    assert result["invalid_items"] == result["duplicate_items"] == 0
    assert result["mean"]["ndcg@10"] == pytest.approx(np.mean([block["ndcg@10"] for block in result["blocks"]]))
    assert all(epoch["gradient_ratio"] > 0 for epoch in result["training"] if epoch["block"] > 0)
    assert result["config"]["proximal"] == {"form": "decoupled", "strength": 3.0, "share": "auto", "lead": 0.3}
    assert result["peak_rss_bytes"] > 1e7
    targets = pl.read_parquet(runs["peso"] / "targets.parquet")
    own = targets.filter((pl.col("protocol") == "in_block") & (pl.col("block") == 1))
    assert len(own) == result["blocks"][0]["num_targets"]
    hits = (own["rank"] <= 10).fill_null(False).mean()
    assert hits == pytest.approx(result["blocks"][0]["hit@10"])
    assert own["log_likelihood"].mean() == pytest.approx(result["blocks"][0]["log_likelihood"])


def test_the_base_is_trained_once(runs: dict[str, Path]) -> None:
    bases = [result_of(folder)["base"] for folder in runs.values()]
    assert len({base["id"] for base in bases}) == 1
    assert sorted(base["reused"] for base in bases) == [False, True, True]


def test_frozen_never_moves_and_others_do(runs: dict[str, Path]) -> None:
    frozen, single = weights_of(runs["frozen"]), weights_of(runs["single"])
    for name, values in frozen[0].items():
        assert (values == frozen[2][name]).all()
    assert any((values != single[2][name]).any() for name, values in single[0].items())


def test_peft_reads_the_adapters(workspace: Path, runs: dict[str, Path]) -> None:
    backbone = load_weights(workspace / "bases" / result_of(runs["peso"])["base"]["id"] / "backbone")
    adapted = PeftModel.from_pretrained(backbone, str(runs["peso"] / "adapters" / "block_2"))
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    stored = weights_of(runs["peso"])[2]
    assert state.keys() == stored.keys()
    assert all((state[name] == stored[name]).all() for name in stored)


def test_strength_zero_is_single_bit_for_bit(workspace: Path, runs: dict[str, Path]) -> None:
    folder = run_stream(workspace, config(method="peso", proximal={"strength": 0.0}))
    for ours, theirs in zip(weights_of(folder), weights_of(runs["single"]), strict=True):
        assert ours.keys() == theirs.keys()
        assert all((ours[name] == theirs[name]).all() for name in ours)


@pytest.mark.parametrize("form", ["decoupled", "paper", "official", "normalised", "l2"])
def test_a_stronger_term_moves_the_adapter_less(workspace: Path, form: str) -> None:
    factor = {"decoupled": 30.0, "paper": 3e2, "official": 3e3, "normalised": 1.0, "l2": 1.0}[form]
    distances = []
    for strength in (0.0, 0.1, 1.0, 10.0):
        # The last epoch, not the best one: the distance of a fixed number of steps.
        overrides = {"training": {"epochs": 1}, "evaluation": {"next_block": "off"}}
        proximal = {"form": form, "strength": strength * factor}
        folder = run_stream(workspace, config(method="peso", proximal=proximal, **overrides), resume=True)
        moved = [e["distance"] ** 2 for e in result_of(folder)["movement"] if "lora" in e["group"] and e["block"] == 1]
        distances.append(float(np.sqrt(sum(moved))))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.9 * distances[0]


def test_same_seed_same_bytes_and_another_seed_differs(tmp_path: Path, runs: dict[str, Path]) -> None:
    again = run_stream(fill(tmp_path / "twin"), config(method="peso"))
    assert numbers_of(again) == numbers_of(runs["peso"])
    first = (runs["peso"] / "adapters" / "block_2" / "adapter_model.safetensors").read_bytes()
    assert (again / "adapters" / "block_2" / "adapter_model.safetensors").read_bytes() == first
    other = run_stream(tmp_path / "twin", config(method="frozen", seed=1))
    assert result_of(other)["base"]["id"] != result_of(again)["base"]["id"]


def test_a_memory_changes_lists_and_likelihoods_and_no_adapter(workspace: Path, runs: dict[str, Path]) -> None:
    folder = run_stream(workspace, config(method="peso", memory={"use": False}))
    alone, with_memory = result_of(folder), result_of(runs["peso"])
    assert with_memory["training"] == alone["training"]
    assert [b["log_likelihood"] for b in with_memory["blocks"]] != [b["log_likelihood"] for b in alone["blocks"]]
    assert with_memory["invalid_items"] == with_memory["duplicate_items"] == 0
    recommended = recommend_for_user(workspace, "u00000", 5, folder.name)
    assert len(recommended["recommendations"]) == 5
    assert recommended != recommend_for_user(workspace, "u00000", 5, runs["peso"].name)


def test_another_catalogue_reuses_the_adapters(workspace: Path, runs: dict[str, Path]) -> None:
    folder = run_stream(workspace, config(method="peso", decoding=SMALL["decoding"] | {"catalogue": "all"}))
    assert folder != runs["peso"]
    ours, theirs = result_of(folder), result_of(runs["peso"])
    assert ours["training"] == theirs["training"]
    assert [b["log_likelihood"] for b in ours["blocks"]] == [b["log_likelihood"] for b in theirs["blocks"]]


def test_killed_runs_resume_to_the_same_numbers(tmp_path: Path, runs: dict[str, Path]) -> None:
    workspace = fill(tmp_path / "killed")
    (tmp_path / "config.toml").write_text(dump_config(config(method="peso")))
    command: list[str | Path] = ["run", "--workspace", workspace, "--config", tmp_path / "config.toml"]
    outputs = [tmp_path / name for name in ("stdout", "stderr")]
    signs = [
        "bases/unfinished-*/backbone.safetensors",
        "runs/*/checkpoint_block_1.safetensors",
        "runs/*/adapters/block_1",
    ]
    for number, sign in enumerate(signs):
        process = begin(*command, *(["--resume"] if number else []), paths=outputs)
        wait_for(workspace, sign, process.is_alive)
        process.kill()
        process.join()
    with pytest.raises(WorkspaceError, match="add --resume"):
        run_stream(workspace, config(method="peso"))
    folder = run_stream(workspace, config(method="peso"), resume=True)
    assert numbers_of(folder) == numbers_of(runs["peso"])
    leftovers = [path for path in workspace.rglob("*") if path.name.startswith(".tmp-") or "checkpoint" in path.name]
    assert leftovers == []


def test_a_finished_run_is_not_overwritten(workspace: Path, runs: dict[str, Path]) -> None:
    before = (runs["single"] / "result.json").read_bytes()
    with pytest.raises(WorkspaceError, match="is finished already"):
        run_stream(workspace, config(method="single"))
    assert run_stream(workspace, config(method="single"), resume=True) == runs["single"]
    assert (runs["single"] / "result.json").read_bytes() == before


def test_recommendations_for_a_user(workspace: Path, runs: dict[str, Path]) -> None:
    answer = recommend_for_user(workspace, "u00000", 5, runs["peso"].name)
    assert len(answer["recommendations"]) == 5
    assert all(item["title"] for item in answer["recommendations"])
    scores = [item["score"] for item in answer["recommendations"]]
    assert scores == sorted(scores, reverse=True)
    with pytest.raises(WorkspaceError, match="not a finished run"):
        recommend_for_user(workspace, "u00000", 5, "peso-seed9-00000000")


def test_a_kill_between_two_writes_leaves_nothing_that_confuses(workspace: Path, tmp_path: Path) -> None:
    """A stale checkpoint of a finished block, and a leftover of a finished run, are removed and not read."""
    folder = run_stream(workspace, config(method="single", max_history=7))
    before = numbers_of(folder)
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "adapters" / "block_2")
    (folder / "checkpoint_block_1.safetensors").write_bytes(b"of a block whose adapter is there")
    (folder / "measured" / ".tmp-block_1-1-x").mkdir(parents=True)
    assert run_stream(workspace, config(method="single", max_history=7), resume=True) == folder
    assert numbers_of(folder) == before
    assert not list(folder.glob("checkpoint*"))
