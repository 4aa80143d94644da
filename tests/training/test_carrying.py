"""What a run has learned goes on in another workspace: same codes, same answers; moved codes, the same words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from peso.data.simulate import SimulationSettings, simulate
from peso.data.storage import save_dataset
from peso.errors import WorkspaceError
from peso.lm.adapters import CARRIED, stored_token_rows
from peso.lm.backbone import load_weights
from peso.lm.grown_codes import Growth
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.semantic_ids.refreshing import refresh_workspace
from peso.training.carrying import carry_over, find_version
from peso.training.grown import write_grown
from peso.training.stream import run_stream
from streams import config

MEMORY = {"memory": {"use": False}}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated world whose items are encoded by their titles."""
    folder = tmp_path_factory.mktemp("shop")
    save_dataset(simulate(SimulationSettings(num_users=60, num_items=150, num_blocks=3)).dataset, folder / "data")
    encode_workspace(folder, EncodingRequest("tfidf", "rq-kmeans", (8, 8, 8)))
    return folder


def result_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "result.json").read_text()))


def targets_of(run: Path, protocol: str, block: int) -> pl.DataFrame:
    frame = pl.read_parquet(run / "targets.parquet").filter(pl.col("protocol") == protocol, pl.col("block") == block)
    return frame.sort("user", "target") if "target" in frame.columns else frame


def test_with_the_same_codes_the_version_answers_as_before(shop: Path, tmp_path: Path) -> None:
    chosen = config(method="peso", proximal={"share": 0.5}, **MEMORY)
    run = run_stream(shop, chosen, resume=True)
    refresh_workspace(shop, tmp_path / "new", 1, 0.0)
    carry_over(find_version(shop, run.name, 1), tmp_path / "new")
    again = run_stream(tmp_path / "new", chosen)
    before, after = result_of(run), result_of(again)
    assert after["base"]["reused"] and after["base"]["carried_from"]["run_id"] == run.name
    assert after["base"]["carried_from"]["data_fingerprint"] == before["data_fingerprint"]
    # Both what recommends and what the next block starts from come along.
    for part in (".", CARRIED):
        theirs = load_file(run / "adapters" / "block_1" / part / "adapter_model.safetensors")
        ours = load_file(again / "adapters" / "block_0" / part / "adapter_model.safetensors")
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    # The next-block protocol of version 1 is the next-block protocol of the new block 0.
    (old,) = [entry for entry in before["next_block"] if entry["model_block"] == 1]
    (new,) = [entry for entry in after["next_block"] if entry["model_block"] == 0]
    assert new["log_likelihood"] == pytest.approx(old["log_likelihood"], abs=1e-5)
    assert new["ndcg@10"] == pytest.approx(old["ndcg@10"], abs=1e-9)
    assert new["num_targets"] == old["num_targets"] > 0


def test_after_a_refresh_training_goes_on(shop: Path, tmp_path: Path) -> None:
    chosen = config(method="peso", **MEMORY)
    run = run_stream(shop, chosen, resume=True)
    facts = refresh_workspace(shop, tmp_path / "new", 1, 0.3)
    folder = carry_over(find_version(shop, None, 1), tmp_path / "new")
    assert facts["num_moved"] > 0
    result = result_of(run_stream(tmp_path / "new", chosen))
    assert result["base"]["id"] == folder.name and result["base"]["carried_from"]["run_id"] == run.name
    assert len(result["blocks"]) == 1 and result["invalid_items"] == 0
    assert result["training"], "block 2 was learned"


def test_what_cannot_be_carried(shop: Path, tmp_path: Path) -> None:
    run = run_stream(shop, config(method="sum_lora", cumulative={"past": "all"}, **MEMORY), resume=True)
    with pytest.raises(WorkspaceError, match="keeps more than one adapter of rank 2"):
        find_version(shop, run.name, 1)
    full = run_stream(shop, config(method="full", **MEMORY), resume=True)
    with pytest.raises(WorkspaceError, match="which no new base can take over"):
        find_version(shop, full.name, 1)
    peso = run_stream(shop, config(method="peso", **MEMORY), resume=True)
    with pytest.raises(WorkspaceError, match="has no version after block 7"):
        find_version(shop, peso.name, 7)
    other = tmp_path / "other"
    save_dataset(simulate(SimulationSettings(num_users=60, num_items=150, num_blocks=3)).dataset, other / "data")
    encode_workspace(other, EncodingRequest("tfidf", "rq-kmeans", (8, 8, 16)))
    with pytest.raises(WorkspaceError, match=r"the codes in .* do not go on from those that run"):
        carry_over(find_version(shop, peso.name, 1), other)
    assert not (other / "bases").exists()


def test_what_the_next_block_starts_from_grows_with_the_codes(shop: Path, tmp_path: Path) -> None:
    run = run_stream(shop, config(method="peso", proximal={"share": 0.5}, **MEMORY), resume=True)
    version = find_version(shop, run.name, 1)
    *upper, last = version.materials.semantic_ids.level_sizes
    num_new = 2
    weights = np.zeros((num_new, last), dtype=np.float32)
    weights[:, 0] = 1  # each new code like the first one
    write_grown(version.base, version.adapter, Growth((*upper, last + num_new), weights), tmp_path)
    for part in (".", CARRIED):
        before, after = stored_token_rows(version.adapter / part), stored_token_rows(tmp_path / "adapter" / part)
        for name, rows in after.items():
            assert torch.equal(rows[:-num_new], before[name])
            assert torch.equal(rows[-1], rows[-2])
    with_codes = load_weights(tmp_path / "backbone")
    assert PeftModel.from_pretrained(with_codes, str(tmp_path / "adapter" / CARRIED)).peft_config
