"""Runs rivals over a workspace and writes results in the form of a run."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from peso.baselines.base import Baseline
from peso.baselines.neighbours import NeighbourCounts
from peso.baselines.popularity import PopularInBlock, PopularSoFar
from peso.baselines.successor import Successor
from peso.data.dataset import Dataset, IntArray
from peso.data.examples import all_events_of_block, items_seen_in_training, targets_of_block
from peso.data.list_rules import ListRules
from peso.data.storage import read_facts
from peso.evaluation.summary import mean_over_blocks, summarise
from peso.evaluation.tables import list_rows, ranks_in_lists, target_rows
from peso.files import atomic_directory, write_json

BASELINES: tuple[type[Baseline], ...] = (PopularSoFar, PopularInBlock, Successor, NeighbourCounts)
LIST_LENGTH = 10


def run_baselines(
    dataset: Dataset, workspace: Path, rules: ListRules, rivals: Sequence[type[Baseline]] = BASELINES
) -> list[Path]:
    """Measures rivals under both protocols; results of the same data and settings are kept.

    Args:
        dataset: the events.
        workspace: where `baselines/<name>-<rules>/` goes.
        rules: what their lists may name.
        rivals: which.

    Returns:
        The result folders, in the order of `rivals`.
    """
    folders = []
    for baseline in rivals:
        folder = workspace / "baselines" / f"{baseline.name}-{rules.name.replace(', ', '-').replace(' ', '-')}"
        folders.append(folder)
        if not _is_measured(folder / "result.json", dataset, baseline):
            _measure(dataset, baseline, rules, folder)
    return folders


def _is_measured(path: Path, dataset: Dataset, baseline: type[Baseline]) -> bool:
    if not path.exists():
        return False
    result = read_facts(
        path, "rival's result", {"data_fingerprint": str, "config": dict}, "remove it to measure the rival again"
    )
    return result["data_fingerprint"] == dataset.fingerprint and result["config"] == baseline.config()


def _measure(dataset: Dataset, baseline: type[Baseline], rules: ListRules, folder: Path) -> None:
    targets, lists, in_block, next_block = [], [], [], []
    fitted: Baseline | None = None
    for block in range(dataset.num_blocks):
        started = time.perf_counter()
        fitted = baseline(dataset, block, fitted)
        trained = time.perf_counter()
        if block > 0:  # block 0 trains the base; the stream is judged from block 1 on
            rows, listed = _score(fitted, rules, "in_block", block)
            targets.append(rows)
            lists.append(listed)
            times = {"train_seconds": trained - started, "test_seconds": time.perf_counter() - trained}
            in_block.append({"block": block} | summarise(rows) | times)
        if block + 1 < dataset.num_blocks:
            rows, _ = _score(fitted, rules, "next_block", block)
            targets.append(rows)
            next_block.append({"model_block": block, "block": block + 1} | summarise(rows))
    result: dict[str, Any] = {
        "run_id": folder.name,
        "method": baseline.name,
        "seed": None,
        "lists": rules.name,
        "beam_width": None,
        "mean": mean_over_blocks(in_block),
        "mean_next_block": mean_over_blocks(next_block),
        "blocks": in_block,
        "next_block": next_block,
        "data_fingerprint": dataset.fingerprint,
        "dataset": {
            "num_users": dataset.num_users,
            "num_items": dataset.num_items,
            "num_events": dataset.num_events,
            "num_blocks": dataset.num_blocks,
            "source": dataset.source,
        },
        "config": baseline.config(),
        "base": None,
        "training": [],
        "movement": [],
    }
    with atomic_directory(folder) as temporary:
        pl.concat(targets).write_parquet(temporary / "targets.parquet")
        pl.concat(lists).write_parquet(temporary / "recommendations.parquet")
        write_json(temporary / "result.json", result)


def _score(fitted: Baseline, rules: ListRules, protocol: str, model_block: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    dataset = fitted.dataset
    is_next = protocol == "next_block"
    block = model_block + 1 if is_next else model_block
    events = all_events_of_block(dataset, block) if is_next else targets_of_block(dataset, block, "test")
    excluded = rules.excluded(dataset, events)
    longest = LIST_LENGTH + max(map(len, excluded), default=0)
    lists = without(fitted.lists(events, longest, rules.allowed(dataset, block)), excluded, LIST_LENGTH)
    rows = target_rows(
        dataset,
        events,
        protocol=protocol,
        model_block=model_block,
        ranks=ranks_in_lists(lists, dataset.event_item[events]),
        log_likelihoods=None,
        seen_items_mask=items_seen_in_training(dataset, model_block),
    )
    scores = np.full(lists.shape, np.nan)
    return rows, list_rows(dataset, model_block, events, lists, scores)


def without(lists: IntArray, excluded: Sequence[IntArray], k: int) -> IntArray:
    """Lists cut to k after leaving items out.

    Args:
        lists: int64 [T, at least k + the most that a list leaves out], best first, filled with -1.
        excluded: per list, the items to leave out.
        k: list length.
    """
    shortened = np.full((len(lists), k), -1, dtype=np.int64)
    for row, (listed, unwanted) in enumerate(zip(lists, excluded, strict=True)):
        kept = listed[~np.isin(listed, unwanted)][:k]
        shortened[row, : len(kept)] = kept
    return shortened
