"""From the pieces of a run to its result: tables in Parquet, one self-describing JSON."""

import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from transformers import AutoConfig

from peso.data.storage import Kind, read_facts
from peso.evaluation.summary import mean_over_blocks, summarise
from peso.files import atomic_path, write_json
from peso.lm.adapters import carried_of
from peso.lm.kernels import PACKAGES, kernels_for
from peso.training.base import BACKBONE, Base
from peso.training.finished import RESULT
from peso.training.materials import Materials
from peso.training.measure import Measurement
from peso.training.update_record import Update, read_update

MEASURED = "measured"
_COUNTS_FILE = "counts.json"
_COUNTS: dict[str, Kind] = {
    "num_invalid": int,
    "num_duplicates": int,
    "memory": dict | None,
    "seconds": {"in_block?": float, "next_block?": float},
}
"""What the file of a block must hold."""

_PACKAGES = ("peso-rec", "torch", "transformers", "peft", "numpy", "polars")


def write_measurements(folder: Path, measurements: list[Measurement]) -> None:
    """Fills a block's folder: targets, lists, and what was counted."""
    lists = [measurement.recommendations for measurement in measurements if measurement.recommendations is not None]
    for name, frames in (
        ("targets", [measurement.targets for measurement in measurements]),
        ("recommendations", lists),
    ):
        if frames:
            pl.concat(frames).write_parquet(folder / f"{name}.parquet")
    write_json(
        folder / _COUNTS_FILE,
        {
            "num_invalid": sum(measurement.num_invalid for measurement in measurements),
            "num_duplicates": sum(measurement.num_duplicates for measurement in measurements),
            "memory": measurements[0].memory.record() if measurements and measurements[0].memory else None,
            "seconds": {measurement.protocol: measurement.seconds for measurement in measurements},
        },
    )


def _carried_bytes(version: Path) -> int:
    """Size of the weights file of what the next block starts from; 0 where that is the version itself."""
    carried = carried_of(version)
    return (carried / SAFETENSORS_WEIGHTS_NAME).stat().st_size if carried != version else 0


def _read_counts(folder: Path) -> dict[str, Any]:
    cure = f"remove {folder} to measure the block again"
    return read_facts(folder / _COUNTS_FILE, "counts of a block", _COUNTS, cure)


def write_outcome(materials: Materials, base: Base, folder: Path, peak_rss_bytes: int) -> dict[str, Any]:
    """Merges a run's blocks into `targets.parquet`, `recommendations.parquet` and, last, `result.json`.

    Args:
        materials: data and configuration.
        base: what the run started from.
        folder: the run, with every block trained and measured.
        peak_rss_bytes: most memory this process held.
    """
    blocks = range(materials.dataset.num_blocks)
    pieces = [folder / MEASURED / f"block_{block}" for block in blocks]
    targets = _merged_tables(pieces, folder)
    counts = [_read_counts(piece) for piece in pieces]
    updates = [read_update(folder / "adapters" / f"block_{block}") for block in blocks]
    in_block, next_block = _summaries(targets, counts, updates)
    dataset, config = materials.dataset, materials.config
    result = {
        "run_id": folder.name,
        "method": config.method,
        "seed": config.seed,
        "lists": materials.list_rules.name,
        "beam_width": config.decoding.beam_width,
        "mean": mean_over_blocks(in_block),
        "mean_next_block": mean_over_blocks(next_block),
        "blocks": in_block,
        "next_block": next_block,
        "invalid_items": sum(count["num_invalid"] for count in counts),
        "duplicate_items": sum(count["num_duplicates"] for count in counts),
        "base": {
            "id": base.id,
            "reused": base.was_reused,
            "seconds": base.seconds,
            "num_parameters": base.num_parameters,
        }
        | ({"carried_from": base.carried_from} if base.carried_from else {}),
        "shuffled_share": materials.shuffled_share,
        "adapter_bytes": updates[-1].adapter_bytes,
        "carried_bytes": _carried_bytes(folder / "adapters" / f"block_{blocks[-1]}"),
        "peak_rss_bytes": peak_rss_bytes,
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "kernels": _kernels(materials, base),
        "data_fingerprint": materials.data_fingerprint,
        "dataset": {
            "num_users": dataset.num_users,
            "num_items": dataset.num_items,
            "num_events": dataset.num_events,
            "num_blocks": dataset.num_blocks,
            "source": dataset.source,
        },
        "training": base.epochs + [epoch for update in updates for epoch in update.epochs],
        "strengths": [trial for update in updates for trial in update.strengths],
        "rates": [trial for update in updates for trial in update.rates],
        "movement": [entry for update in updates for entry in update.movement],
    }
    write_json(folder / RESULT, result)
    shutil.rmtree(folder / MEASURED)
    return result


def _merged_tables(pieces: list[Path], folder: Path) -> pl.DataFrame:
    """Writes the tables of all blocks as one each; the targets."""
    for name in ("targets", "recommendations"):
        with atomic_path(folder / f"{name}.parquet") as temporary:
            files = [piece / f"{name}.parquet" for piece in pieces]
            pl.concat([pl.read_parquet(file) for file in files if file.exists()]).write_parquet(temporary)
    return pl.read_parquet(folder / "targets.parquet")


def _summaries(
    targets: pl.DataFrame, counts: list[dict[str, Any]], updates: list[Update]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What each block measured, on its own targets and on the next block's."""
    in_block, next_block = [], []
    for block, (count, update) in enumerate(zip(counts, updates, strict=True)):
        seconds = count["seconds"]
        if "in_block" in seconds:
            times = {"train_seconds": update.train_seconds, "test_seconds": seconds["in_block"]}
            summary = summarise(_part(targets, "in_block", block))
            in_block.append({"block": block} | summary | times | _chosen(count, update))
        if "next_block" in seconds:
            summary = summarise(_part(targets, "next_block", block))
            next_block.append(
                {"model_block": block, "block": block + 1} | summary | {"test_seconds": seconds["next_block"]}
            )
    return in_block, next_block


def _chosen(count: dict[str, Any], update: Update) -> dict[str, Any]:
    """How a block's memory counts, what it chose, and its share where it did not go all the way."""
    chosen = {"memory": count["memory"]} if count["memory"] else {}
    if kept := [trial["strength"] for trial in update.strengths if trial["selected"]]:
        chosen["proximal_strength"] = kept[0]
    if kept := [trial["rate_factor"] for trial in update.rates if trial["selected"]]:
        chosen["rate_factor"] = kept[0]
    if update.carried_share != 1:
        chosen["proximal_share"] = update.carried_share
        chosen["served_share"] = update.served_share
    return chosen


def _part(targets: pl.DataFrame, protocol: str, model_block: int) -> pl.DataFrame:
    return targets.filter((pl.col("protocol") == protocol) & (pl.col("model_block") == model_block))


def _kernels(materials: Materials, base: Base) -> list[str]:
    """What other libraries computed, with their versions; empty where all was stock or peso's own."""
    names = kernels_for(AutoConfig.from_pretrained(base.folder / BACKBONE), materials.config.training.kernels)
    return [f"{name} ({version(PACKAGES[name])})" for name in names]


def versions() -> dict[str, str]:
    """Of Python, the machine and the packages that decide a result."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        **{package: version(package) for package in _PACKAGES},
    }
