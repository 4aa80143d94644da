"""How a memory should count: what is chosen, what is usual, and what differs in one thing, on validation targets.

Needs workspaces with a finished run each. Test targets are not looked at, so settings may be chosen by what this shows.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine
from peso.baselines.neighbours import NeighbourCounts
from peso.config import MemoryConfig, make_config
from peso.data.examples import items_taken_before, known_events, targets_of_block
from peso.evaluation.ndcg import ndcg
from peso.evaluation.tables import ranks_in_lists
from peso.files import write_json, write_text
from peso.lm.rows import one_target_per_row
from peso.memory.neighbours import FloatArray
from peso.memory.weights import falling, usual_weights
from peso.training.base import load_state, read_base
from peso.training.code_losses import code_losses
from peso.training.materials import Materials, load_materials
from peso.training.memory import build_memory, weights_for

LENGTH = 10


_START = usual_weights(MemoryConfig(), num_levels=1, has_content=False)
USUAL: dict[str, Any] = {
    "lag_weights": _START.lag_weights, "distance_weights": _START.distance_weights, "backward": _START.backward,
}  # fmt: skip
"""What a choice starts from; every row but the first fixes these, so that a row differs from `usual` in its name."""
BEFORE: dict[str, Any] = {
    "lag_weights": (1.0, 0.7, 0.5, 0.35, 0.25), "distance_weights": (1.0, 0.7, 0.5, 0.35, 0.25), "backward": 0.5,
    "decay": 1.0, "discount": 0.0, "prefix_power": 0.0,
}  # fmt: skip
"""The defaults once, but for the items of a history, which were remembered in any data."""
SETTINGS: Mapping[str, dict[str, Any]] = {
    "default: chosen per block": {},
    "usual": USUAL,
    "what it was before": BEFORE,
    "lags fall by 0.7": USUAL | {"lag_weights": falling(0.7)},
    "lags fall by 0.9": USUAL | {"lag_weights": falling(0.9)},
    "20 lags": USUAL | {"lag_weights": falling(0.8, 20)},
    "distances fall by 0.7": USUAL | {"distance_weights": falling(0.7)},
    "distances fall by 0.95": USUAL | {"distance_weights": falling(0.95)},
    "20 distances": USUAL | {"distance_weights": falling(0.85, 20)},
    "lags, distances, backward: 0.6, 0.7, 0.5": {
        "lag_weights": falling(0.6), "distance_weights": falling(0.7), "backward": 0.5,
    },
    "backward 0.5": USUAL | {"backward": 0.5},
    "backward 1": USUAL | {"backward": 1.0},
    "decay 0.8": USUAL | {"decay": 0.8},
    "decay 1": USUAL | {"decay": 1.0},
    "discount 0": USUAL | {"discount": 0.0},
    "discount 0.7": USUAL | {"discount": 0.7},
    "discount 1": USUAL | {"discount": 1.0},
    "prefix power 0": USUAL | {"prefix_power": 0.0},
    "prefix power 0.6": USUAL | {"prefix_power": 0.6},
    "prefix power 1": USUAL | {"prefix_power": 1.0},
}  # fmt: skip


def main() -> None:
    """Measures every setting in every workspace; writes `memory_settings.md` and `memory_settings.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", type=Path, action="append", required=True, help="once or several times")
    parser.add_argument(
        "--run", action="append", required=True, help="a finished run of each workspace, in their order"
    )
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    if len(arguments.workspace) != len(arguments.run):
        parser.error("give one --run for every --workspace.")
    runs = zip(arguments.workspace, arguments.run, strict=True)
    record = {"machine": machine(), "workspaces": {where.name: measured(where, run) for where, run in runs}}
    write_json(arguments.results / "memory_settings.json", record)
    write_text(arguments.results / "memory_settings.md", page(record))


def measured(workspace: Path, run: str) -> dict[str, Any]:
    """NDCG@10 of the counts alone, and log-likelihoods of model and counts; means over blocks 1 and later."""
    folder = workspace / "runs" / run
    materials = load_materials(workspace, make_config(folder / "config.toml"))
    by_model = _code_log_likelihoods(materials, folder)
    rows = {}
    for name, changed in SETTINGS.items():
        config = MemoryConfig(content_weight=0, **changed)
        rows[name] = {
            "ndcg@10": float(np.mean([_rank_quality(materials, config, block) for block in by_model])),
            "log_likelihood": float(
                np.mean([_log_likelihood(materials, config, block, by_model[block]) for block in by_model])
            ),
        }
    return {"run": run, "data": materials.dataset.source, "lists": materials.list_rules.name, "rows": rows}


def _code_log_likelihoods(materials: Materials, run: Path) -> dict[int, FloatArray]:
    """Per later block, float64 [T, M]: what the model after it gives each code of its validation targets."""
    dataset, base, found = materials.dataset, read_base(materials, run.parent.parent / "bases"), {}
    for block in range(1, dataset.num_blocks):
        _, reader = load_state(materials, base, run / "adapters" / f"block_{block}")
        targets = targets_of_block(dataset, block, "valid")
        rows = one_target_per_row(dataset, targets, materials.config.max_history)
        found[block] = -code_losses(reader.model, reader.likelihood, reader.builder, rows)
    return found


def _rank_quality(materials: Materials, config: MemoryConfig, block: int) -> float:
    class Counts(NeighbourCounts):
        memory = config

    dataset, rules = materials.dataset, materials.list_rules
    targets, allowed = targets_of_block(dataset, block, "valid"), rules.allowed(dataset, block)
    excluded = rules.excluded(dataset, targets)
    longest = max(map(len, excluded), default=0)
    lists = Counts(dataset, block).lists(targets, LENGTH + longest, allowed)
    kept = [row[~np.isin(row, gone)][:LENGTH] for row, gone in zip(lists, excluded, strict=True)]
    ranks = ranks_in_lists(np.stack(kept), dataset.event_item[targets])
    return float(ndcg(ranks, LENGTH).mean())


def _log_likelihood(materials: Materials, config: MemoryConfig, block: int, by_model: FloatArray) -> float:
    dataset, codes = materials.dataset, materials.semantic_ids.codes
    targets, events = targets_of_block(dataset, block, "valid"), known_events(dataset, block)
    histories, items = items_taken_before(dataset, targets), dataset.event_item[targets]
    weights = weights_for(dataset, events, codes, config, histories, items, by_model)
    memory = build_memory(dataset, events, codes, config, weights=weights)
    return float(memory.log_likelihoods(histories, items, by_model).mean())


def page(record: dict[str, Any]) -> str:
    """The table in Markdown."""
    workspaces = record["workspaces"]
    heads = [f"{name}: {what}" for name in workspaces for what in ("NDCG@10, counts alone", "nats, with the model")]
    lines = [
        "# How a memory should count",
        "",
        "Validation targets of blocks 1 and later. *counts alone*: the rival `neighbours`. *with the model*: the mean",
        "log-likelihood with strengths fitted on the same targets. The first row chooses how pairs count by what",
        "counts alone say of these targets: it shows what a choice finds, not how well it does on others. Every other",
        "row fixes all but the strengths. Written by `python -m benchmarks.memory`; what is usual was chosen by an",
        "earlier look at the same targets of Video Games and CDs. Items of a history are left out in every row where",
        "users take nothing twice; before, they never were.",
        "",
        *(f"- {name}: {of['data']}, run `{of['run']}`; lists: {of['lists']}." for name, of in workspaces.items()),
        "",
        f"| setting | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for setting in SETTINGS:
        rows = [of["rows"][setting] for of in workspaces.values()]
        cells = [cell for row in rows for cell in (f"{row['ndcg@10']:.4f}", f"{row['log_likelihood']:.3f}")]
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Machine: `{json.dumps(record['machine'])}`", ""])


if __name__ == "__main__":
    main()
