"""A setting of one block's training that is chosen on that block's validation targets: its rates, or its anchor.

`training.rate_factors` scale the learning rates, `proximal.strength = "auto"` is the strength of the anchor. Every
candidate trains the block from the same state with the same order and dropout, and after each epoch the worse ones are
dropped: the validation loss of every one stands in the record, and no epoch is trained twice. Who is ahead after an
epoch or two mostly stays ahead, so a choice costs a few epochs and not a training per candidate.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peso.files import hash_of_json
from peso.training.epochs import EpochRecord, kept_epoch
from peso.training.materials import Reader
from peso.training.processes import wait_for_all
from peso.training.stage import Stage
from peso.training.trainer import train_stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """What is chosen, and how fast.

    Attributes:
        name: of the setting in logs and files.
        dropped_per_epoch: candidates that end after each epoch, while the best one goes on.
        never_dropped: the candidate that goes on whatever its loss, so that what is kept has at most the validation
            loss that it reaches; None for none.
    """

    name: str
    dropped_per_epoch: int
    never_dropped: float | None = None


RATE = Setting("rate_factor", dropped_per_epoch=1)
"""Of the learning rates."""

STRENGTH = Setting("strength", dropped_per_epoch=2, never_dropped=0.0)
"""Of the anchor: strength 0 is what the method "single" would have reached from the same state."""


@dataclass(frozen=True)
class Trial:
    """One candidate of a block.

    Attributes:
        block: the block trained on.
        value: the candidate.
        epochs: passes over the block before it was dropped, or all of them.
        valid_loss: mean -log p(item) over validation targets, nats, after the best of these.
        seconds: training time of these.
        selected: whether the block's adapter is this candidate's.
    """

    block: int
    value: float
    epochs: int
    valid_loss: float
    seconds: float
    selected: bool

    def record(self, setting: Setting) -> dict[str, Any]:
        """For the record of the update; the value stands under the setting's name."""
        return {
            "block": self.block,
            setting.name: self.value,
            "epochs": self.epochs,
            "valid_loss": self.valid_loss,
            "seconds": self.seconds,
            "selected": self.selected,
        }


def passes_over_block(setting: Setting, num_candidates: int, epochs: int) -> int:
    """Epochs that are trained at most, of all candidates together; where there is no choice, those of the one."""
    if num_candidates <= 1:
        return epochs
    alive = [num_candidates]
    while len(alive) < epochs:
        beside = 0 if setting.never_dropped is None else 1
        alive.append(min(alive[-1], beside + max(1, alive[-1] - setting.dropped_per_epoch)))
    return sum(alive)


def train_with_best(
    reader: Reader, stages: Mapping[float, Stage], checkpoint: Path, setting: Setting
) -> tuple[list[EpochRecord], int, list[Trial]]:
    """Trains a block with several values of a setting, and leaves the best one's parameters in the model.

    Args:
        reader: model and loss.
        stages: the stage of each candidate; all share their parts, whose values are where each of them starts. Of equal
            losses the smaller value is kept.
        checkpoint: file that the candidates' own checkpoints are named after. They stay: an interrupted search goes on
            from them, and the caller removes them once the result is safe.
        setting: what the candidates are values of.

    Returns:
        The winner's epochs, which of them was kept (1-based), and the record of every candidate.
    """
    first = next(iter(stages.values()))
    starts = {name: part.snapshot() for name, part in first.parts.items()}
    alive = list(stages)
    trials: dict[float, Trial] = {}

    def train(value: float, epochs: int) -> tuple[list[EpochRecord], int]:
        for name, part in first.parts.items():
            part.restore(starts[name])
        log.info("%s: %s %g", first.name, setting.name, value)
        stage = stages[value]
        own = replace(stage, key=hash_of_json([stage.key, setting.name, value]))
        file = checkpoint.with_stem(f"{checkpoint.stem}_{setting.name}_{value:g}")
        wait_for_all()  # the first process may still be writing what all go on from
        return train_stage(reader.model, reader.likelihood, own, file, until=epochs)

    epochs = 0
    while epochs < first.epochs:
        epochs = epochs + 1 if len(alive) > 1 else first.epochs  # nobody is left to compare with
        for value in alive:
            # After an interruption a candidate may be further along than this round.
            so_far = train(value, epochs)[0][:epochs]
            loss = so_far[kept_epoch(so_far) - 1].valid_loss
            assert loss is not None, "a setting is chosen where there are validation targets"
            seconds = sum(record.seconds for record in so_far)
            trials[value] = Trial(first.block, value, epochs, loss, seconds, selected=False)
        ranked = sorted(alive, key=lambda value: (trials[value].valid_loss, value))
        kept = ranked[: max(1, len(alive) - setting.dropped_per_epoch)]
        alive = [value for value in alive if value in kept or value == setting.never_dropped]
    best = min(trials, key=lambda value: (trials[value].valid_loss, value))
    records, selected = train(best, trials[best].epochs)
    loss = trials[best].valid_loss
    log.info("%s: %s %g has the least validation loss, %.3f nats", first.name, setting.name, best, loss)
    return records, selected, [replace(trial, selected=trial.value == best) for trial in trials.values()]
