"""One update of a block against training the adapter again on all data so far, and the memory's update by an event.

Both sides make one pass. Training again has the batches of the base's training, which suit so much data, and no anchor.
"""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.harness import PAIRS, Outcome, Target, compare, run_benchmark, seconds_of
from benchmarks.world import build_adapted_model, load_world
from peso.data.dataset import IntArray
from peso.data.examples import targets_of_block
from peso.memory.live import LiveNeighbours
from peso.memory.weights import usual_weights
from peso.methods.registry import build_method
from peso.training.base import adapter_parts, validation_rows
from peso.training.block_view import RunView
from peso.training.materials import Materials
from peso.training.trainer import train_stage
from peso.training.update_stage import update_stage

RETRAINING, SPREAD, MICROSECONDS = 5.0, 1.5, 100.0
EPOCHS = 1
QUICK_SHARE = 12
_AGAIN = {"method": "retrain"}


def main() -> None:
    """Command line."""
    run_benchmark("update", __doc__, measure)


def measure(quick: bool) -> Outcome:
    """Updates of every block, and one retraining at the last, in turns."""
    materials = load_world()
    last = materials.dataset.num_blocks - 1
    updates = {block: _targets(materials, [block], quick) for block in range(1, last + 1)}
    everything = _targets(materials, list(range(last + 1)), quick)
    sides: dict[str, Callable[[], float]] = {
        f"block_{block}": _training(materials, block, targets) for block, targets in updates.items()
    }
    comparison = compare(sides | {"retraining": _training(load_world(_AGAIN), last, everything)}, PAIRS)
    per_target = {block: comparison.median(f"block_{block}") / len(targets) for block, targets in updates.items()}
    return Outcome(
        {
            "retraining_over_update": Target(comparison.ratio("retraining", f"block_{last}"), RETRAINING, unit="x"),
            "spread_of_cost_per_target": Target(
                max(per_target.values()) / min(per_target.values()), SPREAD, "at_most", "x"
            ),
            "memory_microseconds_per_event": Target(
                _microseconds_per_event(materials, PAIRS), MICROSECONDS, "at_most", "us"
            ),
        },
        {
            "data": materials.dataset.source,
            "targets": {f"block_{block}": len(targets) for block, targets in updates.items()}
            | {"retraining": len(everything)},
            "milliseconds_per_target": {f"block_{block}": 1e3 * seconds for block, seconds in per_target.items()},
            "epochs": EPOCHS,
            "seconds": comparison.as_json(),
        },
    )


def _microseconds_per_event(materials: Materials, turns: int) -> float:
    """Of the last block's events, learned one by one by a memory that knows the blocks before."""
    dataset, config = materials.dataset, materials.config.memory
    usual = usual_weights(config, materials.semantic_ids.codes.shape[1], has_content=False)
    known = np.flatnonzero(dataset.event_block < dataset.num_blocks - 1)
    new = np.flatnonzero(dataset.event_block == dataset.num_blocks - 1)
    starts = dataset.user_offsets[dataset.event_user[new]]
    events = [
        (dataset.event_item[start:event], int(dataset.event_item[event]))
        for start, event in zip(starts.tolist(), new.tolist(), strict=True)
    ]

    def once() -> float:
        live = LiveNeighbours(dataset, known, usual.distance_weights, usual.backward, config.decay, config.discount)

        def learn() -> None:
            for history, item in events:
                live.observe(history, item)

        return seconds_of(learn)

    return 1e6 * statistics.median(once() for _ in range(turns)) / len(events)


def _targets(materials: Materials, blocks: list[int], quick: bool) -> IntArray:
    """Training targets of blocks; when quick, those of every twelfth user."""
    dataset = materials.dataset
    targets = np.concatenate([targets_of_block(dataset, block, "train") for block in blocks])
    targets.sort()
    return targets[dataset.event_user[targets] % QUICK_SHARE == 0] if quick else targets


def _training(materials: Materials, block: int, targets: IntArray) -> Callable[[], float]:
    """Seconds of a stage from a fresh start, validation included."""
    world = build_adapted_model(materials)
    config, reader = materials.config, world.reader
    parts = adapter_parts(world.peft)
    start = {name: part.snapshot() for name, part in parts.items()}
    valid = validation_rows(materials, block)
    valid = valid.take(np.arange(min(len(valid), len(targets) // 8)))
    view = RunView(materials, reader, world.peft, Path(), block)
    stage = replace(
        update_stage(materials, reader, parts, build_method(config), view, targets, f"block_{block}"),
        valid_rows=valid,
        epochs=EPOCHS,
    )
    if config.method == "retrain":
        stage = replace(stage, batch_targets=config.training.base_batch_targets)

    def once() -> float:
        for name, part in parts.items():
            part.restore(start[name])
        with tempfile.TemporaryDirectory() as folder:
            return seconds_of(lambda: train_stage(reader.model, reader.likelihood, stage, Path(folder) / "state"))

    return once


if __name__ == "__main__":
    main()
