"""The results of a workspace: runs and rivals, grouped into variants that differ in their seed only."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from peso.config import unread_sections
from peso.data.storage import Kind, read_facts
from peso.errors import WorkspaceError
from peso.training.finished import RESULT

MEASURES_NOT_COMPARED = ("seed", "decoding.catalogue", "decoding.repeats")
_RESULT: dict[str, Kind] = {
    "method": str,
    "seed": int | None,
    "lists": str,
    "mean": {"ndcg@10": object},
    "blocks": [
        {
            **dict.fromkeys(("block", "num_targets"), int),
            **dict.fromkeys(("hit@10", "ndcg@10", "log_likelihood"), object),
            **dict.fromkeys(("train_seconds", "test_seconds"), float),
        }
    ],
    "config": dict,
}
"""What is read of every result."""


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One finished run or rival.

    Attributes:
        folder: holds `result.json`, `targets.parquet` and `recommendations.parquet`.
        result: the content of `result.json`.
    """

    folder: Path
    result: dict[str, Any]

    @cached_property
    def targets(self) -> pl.DataFrame:
        """Scored targets, with the column `seed` (null for a rival)."""
        frame = pl.read_parquet(self.folder / "targets.parquet")
        return frame.with_columns(seed=pl.lit(self.result["seed"], dtype=pl.Int64))

    @cached_property
    def recommendations(self) -> pl.DataFrame:
        """Lists of the in-block test users."""
        return pl.read_parquet(self.folder / "recommendations.parquet")


@dataclass(frozen=True, eq=False)
class Variant:
    """Runs of one method and configuration with different seeds.

    Attributes:
        name: the method, with what sets the variant apart from others of its method.
        method: the method or rival.
        lists: what its lists may name.
        runs: at least one, by seed.
    """

    name: str
    method: str
    lists: str
    runs: Sequence[RunRecord]

    @property
    def is_rival(self) -> bool:
        """Whether this is a rival, which is measured once, without a seed of the study."""
        return self.runs[0].result["seed"] is None

    def targets(self, protocol: str) -> pl.DataFrame:
        """Scored targets of every seed under one protocol."""
        return pl.concat([run.targets for run in self.runs]).filter(pl.col("protocol") == protocol)

    def mean(self, metric: str, over: str = "mean") -> float | None:
        """Mean over seeds of a metric's mean over blocks; None where a run lacks it."""
        values = [run.result[over].get(metric) for run in self.runs]
        return None if any(value is None for value in values) else sum(values) / len(values)


def load_results(workspace: Path) -> list[RunRecord]:
    """Every finished run and rival of a workspace.

    Raises:
        WorkspaceError: there is none, or one is damaged.
    """
    if not workspace.is_dir():
        raise WorkspaceError(f"workspace {workspace} does not exist; check --workspace.")
    paths = sorted((workspace / "runs").glob(f"*/{RESULT}"))
    if not paths:
        raise WorkspaceError(f"workspace {workspace} holds no finished run; use `peso run` first.")
    paths += sorted((workspace / "baselines").glob(f"*/{RESULT}"))
    return [read_record(path.parent) for path in paths]


def read_record(folder: Path) -> RunRecord:
    """What a finished run or rival left.

    Raises:
        WorkspaceError: its result is missing or damaged.
    """
    cure = f"restore it, or remove {folder} and measure again"
    return RunRecord(folder, read_facts(folder / RESULT, "result", _RESULT, cure))


def group_variants(records: Sequence[RunRecord]) -> list[Variant]:
    """Groups runs that differ in their seed only; a method with several configurations is named by the differences."""
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    settings: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in records:
        flat = {k: v for k, v in _flatten(record.result["config"]).items() if k not in MEASURES_NOT_COMPARED}
        unread = unread_sections(record.result["method"])
        flat = {k: v for k, v in flat.items() if k.split(".")[0] not in unread}
        shown = record.result["method"]
        if flat.pop("memory.use", False):
            shown += " + memory"
        else:
            flat = {k: v for k, v in flat.items() if not k.startswith("memory.")}
        key = (shown, record.result["lists"], repr(sorted(flat.items())))
        groups.setdefault(key, []).append(record)
        settings[key] = flat
    variants = []
    for key, runs in groups.items():
        twins = [settings[other] for other in settings if other[:2] == key[:2]]
        varying = [k for k in settings[key] if any(twin.get(k) != settings[key][k] for twin in twins)]
        label = ", ".join(f"{k.split('.')[-1]} {settings[key][k]}" for k in varying)
        name = f"{key[0]} ({label})" if label else key[0]
        runs = sorted(runs, key=lambda run: (run.result["seed"] is None, run.result["seed"]))
        variants.append(Variant(name, runs[0].result["method"], key[1], runs))
    counted, classical = (
        ["popular", "popular_in_block", "successor", "neighbours"],
        ["item_knn", "bpr", "sasrec", "sasrec_retrained"],
    )
    order = [*counted, *classical, "frozen", "single", "peso"]
    return sorted(variants, key=lambda v: (order.index(v.method) if v.method in order else len(order), v.name))


def list_runs(workspace: Path) -> pl.DataFrame:
    """A table of runs and rivals, unfinished runs included.

    Raises:
        WorkspaceError: the workspace does not exist or holds no run at all.
    """
    if not workspace.is_dir():
        raise WorkspaceError(f"workspace {workspace} does not exist; check --workspace.")
    rows: list[dict[str, Any]] = []
    for folder in sorted([*(workspace / "runs").glob("*-*"), *(workspace / "baselines").glob("*-*")]):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        finished = (folder / RESULT).exists()
        result = read_record(folder).result if finished else {}
        blocks = [block for block in result.get("blocks", []) if block["block"] > 0]
        rows.append(
            {
                "run_id": folder.name,
                "finished": "yes" if finished else "no",
                "method": result.get("method"),
                "seed": result.get("seed"),
                "lists": result.get("lists"),
                "ndcg@10": result.get("mean", {}).get("ndcg@10"),
                "hit@10": result.get("mean", {}).get("hit@10"),
                "log_likelihood": result.get("mean", {}).get("log_likelihood"),
                "update_seconds": sum(block["train_seconds"] for block in blocks) if finished else None,
            }
        )
    if not rows:
        raise WorkspaceError(f"workspace {workspace} holds no run; use `peso run` first.")
    return pl.DataFrame(rows, infer_schema_length=None)


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
