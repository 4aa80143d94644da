"""Runs every rival over a workspace and writes results in the form of a run."""

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
from peso.evaluation.summary import mean_over_blocks, summarise
from peso.evaluation.tables import list_rows, ranks_in_lists, target_rows
from peso.files import atomic_directory, read_json, write_json

BASELINES: tuple[type[Baseline], ...] = (PopularSoFar, PopularInBlock, Successor, NeighbourCounts)
LIST_LENGTH = 10


def run_baselines(dataset: Dataset, workspace: Path, rules: ListRules) -> list[Path]:
    """Measures every rival under both protocols; results of the same data are kept.

    Args:
        dataset: the events.
        workspace: where `baselines/<name>-<rules>/` goes.
        rules: what their lists may name.

    Returns:
        The result folders, in the order of `BASELINES`.
    """
    folders = []
    for baseline in BASELINES:
        folder = workspace / "baselines" / f"{baseline.name}-{rules.name.replace(', ', '-').replace(' ', '-')}"
        folders.append(folder)
        result = folder / "result.json"
        if result.exists() and read_json(result, "rival's result")["data_fingerprint"] == dataset.fingerprint:
            continue
        _measure(dataset, baseline, rules, folder)
    return folders


def _measure(dataset: Dataset, baseline: type[Baseline], rules: ListRules, folder: Path) -> None:
    targets, lists, in_block, next_block = [], [], [], []
    for block in range(dataset.num_blocks):
        if block > 0:  # block 0 trains the base; the stream is judged from block 1 on
            started = time.perf_counter()
            rows, listed = _score(dataset, baseline, rules, "in_block", block)
            targets.append(rows)
            lists.append(listed)
            times = {"train_seconds": 0.0, "test_seconds": time.perf_counter() - started}
            in_block.append({"block": block} | summarise(rows) | times)
        if block + 1 < dataset.num_blocks:
            rows, _ = _score(dataset, baseline, rules, "next_block", block)
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
        "config": {},
        "base": None,
        "training": [],
        "movement": [],
    }
    with atomic_directory(folder) as temporary:
        pl.concat(targets).write_parquet(temporary / "targets.parquet")
        pl.concat(lists).write_parquet(temporary / "recommendations.parquet")
        write_json(temporary / "result.json", result)


def _score(
    dataset: Dataset, baseline: type[Baseline], rules: ListRules, protocol: str, model_block: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    is_next = protocol == "next_block"
    block = model_block + 1 if is_next else model_block
    events = all_events_of_block(dataset, block) if is_next else targets_of_block(dataset, block, "test")
    fitted = baseline(dataset, model_block, rules.allowed(dataset, block))
    excluded = rules.excluded(dataset, events)
    lists = without(fitted.lists(events, LIST_LENGTH + max(map(len, excluded), default=0)), excluded, LIST_LENGTH)
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
