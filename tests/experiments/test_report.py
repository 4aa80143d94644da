"""The report: whole, self-contained, true to the results, and safe with any title."""

import copy
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from peso.baselines.run import run_baselines
from peso.config import make_config
from peso.data.dataset import Dataset
from peso.data.examples import all_events_of_block, items_seen_in_training, targets_of_block
from peso.data.list_rules import ListRules
from peso.errors import WorkspaceError
from peso.evaluation.summary import mean_over_blocks, summarise
from peso.evaluation.tables import list_rows, ranks_in_lists, target_rows
from peso.experiments.report import write_report
from peso.experiments.results import group_variants, list_runs, load_results
from peso.files import write_json
from worlds import fill_workspace, tiny_dataset

NASTY = '<script>alert("x")</script>'


def world(folder: Path) -> Dataset:
    plain = tiny_dataset(30, 40, 3)
    titles = [NASTY, *plain.titles[1:]]
    dataset = Dataset(
        plain.user_ids, plain.item_ids, titles, plain.event_user, plain.event_item, plain.event_block, 3, "tiny"
    )
    return fill_workspace(folder, dataset)


def write_run(workspace: Path, dataset: Dataset, method: str, seed: int, **overrides: Any) -> dict[str, Any]:
    """A finished run with random lists that all hold the nasty title."""
    random = np.random.default_rng([seed, len(method)])
    folder = workspace / "runs" / f"{method}-seed{seed}-{random.integers(10**8):08d}"
    frames: list[pl.DataFrame] = []
    lists: list[pl.DataFrame] = []
    blocks: list[dict[str, Any]] = []
    following: list[dict[str, Any]] = []
    for model_block in range(3):
        for protocol, block in (("in_block", model_block), ("next_block", model_block + 1)):
            if (protocol == "in_block") == (block == 0) or block > 2:
                continue
            is_own = protocol == "in_block"
            events = targets_of_block(dataset, block, "test") if is_own else all_events_of_block(dataset, block)
            listed = np.stack([np.r_[0, 1 + random.permutation(39)[:9]] for _ in events])
            frame = target_rows(
                dataset, events, protocol=protocol, model_block=model_block,
                ranks=ranks_in_lists(listed, dataset.event_item[events]),
                log_likelihoods=random.normal(-3, 1, len(events)),
                seen_items_mask=items_seen_in_training(dataset, model_block),
            )  # fmt: skip
            frames.append(frame)
            summary = {"model_block": model_block, "block": block, "train_seconds": 1.0, "test_seconds": 1.0}
            (blocks if is_own else following).append(summary | summarise(frame))
            if is_own:
                lists.append(list_rows(dataset, model_block, events, listed, random.random(listed.shape)))
    ratio = 0.1 if method == "peso" else None
    plain = {"method": method, "seed": seed, "memory": {"use": False}}
    epoch = {"train_loss": 5.0, "valid_loss": 6.0, "gradient_ratio": ratio, "seconds": 1.0, "selected": True}
    result = {
        "run_id": folder.name, "method": method, "seed": seed, "lists": "known, repeats allowed", "beam_width": 50,
        "mean": mean_over_blocks(blocks), "mean_next_block": mean_over_blocks(following),
        "blocks": blocks, "next_block": following, "invalid_items": 0, "duplicate_items": 0,
        "base": {"id": "b", "reused": False, "seconds": 10.0, "num_parameters": 100},
        "adapter_bytes": 1000, "peak_rss_bytes": 10**9, "versions": {"python": "3"}, "data_fingerprint": "f" * 64,
        "config": make_config(None, plain | overrides).model_dump(mode="json"),
        "training": [{"block": block, "epoch": 1, **epoch} for block in range(3)],
        "movement": [] if method == "frozen" else [
            {"block": block, "group": group, "distance": 1.0, "anchor_norm": 2.0}
            for block in (1, 2) for group in ("layers.0.mlp.up_proj.lora_A", "lm_head.rows")
        ],
    }  # fmt: skip
    folder.mkdir(parents=True)
    pl.concat(frames).write_parquet(folder / "targets.parquet")
    pl.concat(lists).write_parquet(folder / "recommendations.parquet")
    write_json(folder / "result.json", result)
    return result


class Page(HTMLParser):
    """Collects tags, outward references and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outward: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outward += [value for name, value in attrs if name in ("src", "href") and value and value[0] != "#"]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    dataset = world(folder)
    for seed in (0, 1):
        for method in ("frozen", "single", "peso"):
            write_run(folder, dataset, method, seed)
    run_baselines(dataset, folder, ListRules("known", excludes_history=False))
    return folder


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_the_page_is_whole_and_self_contained(workspace: Path) -> None:
    page = read(write_report(workspace))
    assert page.outward == []
    assert "script" not in page.tags
    assert NASTY in page.words
    for words in (
        "What may be claimed", "Block by block", "Stability and plasticity", "the adapter", "Training",
        "Time and size", "Example users", "Configuration",
    ):  # fmt: skip
        assert words in page.words
    assert page.tags.count("svg") >= 7


def test_the_table_shows_the_means_of_the_results(workspace: Path) -> None:
    words = read(write_report(workspace)).words
    for variant in group_variants(load_results(workspace)):
        expected = np.mean([run.result["mean"]["ndcg@10"] for run in variant.runs])
        assert f"{expected:.4f}" in words
    assert "no difference can be claimed" in words


def test_one_seed_of_one_method_is_enough(tmp_path: Path) -> None:
    write_run(tmp_path, world(tmp_path), "frozen", 0)
    words = read(write_report(tmp_path)).words
    assert "one seed" in words
    assert "No run of this workspace moved an adapter" in words


def test_runs_that_differ_in_more_than_the_seed_are_told_apart(tmp_path: Path) -> None:
    dataset = world(tmp_path)
    write_run(tmp_path, dataset, "peso", 0, proximal={"strength": 0.5})
    write_run(tmp_path, dataset, "peso", 1, proximal={"strength": 2.0})
    names = [variant.name for variant in group_variants(load_results(tmp_path))]
    assert names == ["peso (strength 0.5)", "peso (strength 2.0)"]


def test_what_was_chosen_is_shown_per_block_of_runs_that_chose(tmp_path: Path) -> None:
    dataset = world(tmp_path)
    write_run(tmp_path, dataset, "single", 0)
    assert "What was chosen" not in read(write_report(tmp_path)).words
    result = write_run(tmp_path, dataset, "peso", 0)
    result["blocks"][0] |= {"rate_factor": 0.25, "proximal_share": 0.8, "served_share": 0.9}
    result["blocks"][1] |= {"rate_factor": 1.0, "proximal_strength": 0.1}
    write_json(tmp_path / "runs" / result["run_id"] / "result.json", result)
    words = read(write_report(tmp_path)).words
    table = words[words.index("What was chosen") : words.index("Example users")]
    assert result["run_id"] in table
    assert "single-seed0" not in table
    assert table.index("rates x 0.25, 80% of the way, recommending from 90%") < table.index("rates x 1, strength 0.1")


def test_broken_and_missing_results(tmp_path: Path) -> None:
    world(tmp_path)
    with pytest.raises(WorkspaceError, match="no finished run"):
        write_report(tmp_path)
    broken = tmp_path / "runs" / "peso-seed0-1"
    broken.mkdir(parents=True)
    assert list_runs(tmp_path)["finished"].to_list() == ["no"]
    (broken / "result.json").write_text(json.dumps(copy.copy({"method": "peso"}))[:-3])
    with pytest.raises(WorkspaceError, match="not valid JSON"):
        write_report(tmp_path)
