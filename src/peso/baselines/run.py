"""Runs every rival over a workspace and writes results in the form of a run."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from peso.baselines.base import Baseline
from peso.baselines.popularity import PopularInBlock, PopularSoFar
from peso.baselines.successor import Successor
from peso.data.dataset import Dataset
from peso.data.examples import all_events_of_block, catalogue_items, items_seen_in_training, targets_of_block
from peso.evaluation.summary import mean_over_blocks, summarise
from peso.evaluation.tables import list_rows, ranks_in_lists, target_rows
from peso.files import atomic_directory, read_json, write_json
from peso.types import CatalogueName

BASELINES: tuple[type[Baseline], ...] = (PopularSoFar, PopularInBlock, Successor)
LIST_LENGTH = 10


def run_baselines(dataset: Dataset, workspace: Path, catalogue: CatalogueName) -> list[Path]:
    """Measures every rival under both protocols; results of the same data are kept.

    Args:
        dataset: the events.
        workspace: where `baselines/<name>-<catalogue>/` goes.
        catalogue: which items may be listed.

    Returns:
        The result folders, in the order of `BASELINES`.
    """
    folders = []
    for baseline in BASELINES:
        folder = workspace / "baselines" / f"{baseline.name}-{catalogue}"
        folders.append(folder)
        result = folder / "result.json"
        if result.exists() and read_json(result, "rival's result")["data_fingerprint"] == dataset.fingerprint:
            continue
        _measure(dataset, baseline, catalogue, folder)
    return folders


def _measure(dataset: Dataset, baseline: type[Baseline], catalogue: CatalogueName, folder: Path) -> None:
    targets, lists, in_block, next_block = [], [], [], []
    for block in range(dataset.num_blocks):
        if block > 0:  # block 0 trains the base; the stream is judged from block 1 on
            started = time.perf_counter()
            rows, listed = _score(dataset, baseline, catalogue, "in_block", block)
            targets.append(rows)
            lists.append(listed)
            times = {"train_seconds": 0.0, "test_seconds": time.perf_counter() - started}
            in_block.append({"block": block} | summarise(rows) | times)
        if block + 1 < dataset.num_blocks:
            rows, _ = _score(dataset, baseline, catalogue, "next_block", block)
            targets.append(rows)
            next_block.append({"model_block": block, "block": block + 1} | summarise(rows))
    result: dict[str, Any] = {
        "run_id": folder.name,
        "method": baseline.name,
        "seed": None,
        "catalogue": catalogue,
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
    dataset: Dataset, baseline: type[Baseline], catalogue: CatalogueName, protocol: str, model_block: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    is_next = protocol == "next_block"
    block = model_block + 1 if is_next else model_block
    events = all_events_of_block(dataset, block) if is_next else targets_of_block(dataset, block, "test")
    fitted = baseline(dataset, model_block, catalogue_items(dataset, catalogue, block))
    lists = fitted.lists(events, LIST_LENGTH)
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
