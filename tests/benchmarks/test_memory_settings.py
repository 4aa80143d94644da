"""Settings of a memory on a tiny workspace: every number from the parts that runs and rivals use."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import memory
from peso.baselines.neighbours import NeighbourCounts
from peso.data.examples import targets_of_block
from peso.evaluation.ndcg import ndcg
from peso.evaluation.tables import ranks_in_lists
from peso.training.materials import load_materials
from peso.training.stream import run_stream
from streams import config, fill


def test_the_default_is_the_rival_and_likelihoods_are_those_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(
        method="single", evaluation={"next_block": "off"}, decoding={"beam_width": 10, "repeats": "allowed"}
    )
    workspace = fill(tmp_path / "world")
    run = run_stream(workspace, chosen)
    settings = {
        name: memory.SETTINGS[name] for name in ("default: chosen per block", "usual", "discount 1", "prefix power 1")
    }
    monkeypatch.setattr(memory, "SETTINGS", settings)
    found = memory.measured(workspace, run.name)
    materials = load_materials(workspace, chosen)
    dataset, by_block = materials.dataset, []
    for block in (1, 2):
        targets = targets_of_block(dataset, block, "valid")
        lists = NeighbourCounts(dataset, block).lists(targets, 10, materials.list_rules.allowed(dataset, block))
        by_block.append(ndcg(ranks_in_lists(lists, dataset.event_item[targets]), 10).mean())
    assert found["rows"]["default: chosen per block"]["ndcg@10"] == pytest.approx(np.mean(by_block))
    assert found["rows"]["prefix power 1"]["ndcg@10"] == found["rows"]["usual"]["ndcg@10"], "counts know no model"
    likelihoods = [row["log_likelihood"] for row in found["rows"].values()]
    assert len(set(likelihoods)) >= 3 and max(likelihoods) < 0
    page = memory.page({"machine": {}, "workspaces": {"world": found}})
    assert page.count("\n| ") == 1 + len(settings) and f"run `{run.name}`" in page
