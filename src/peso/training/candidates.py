"""The candidates for a setting of one block's training: each starts from the same state, and none trains twice.

Every candidate trains with the same order and dropout, keeps a checkpoint of its own, and its validation loss after the
best of its epochs stands in the record. Who is trained how long is `peso.training.search`'s business.
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
class Trial:
    """One candidate of a block.

    Attributes:
        block: the block trained on.
        value: the candidate.
        epochs: passes over the block before it was dropped, or all of them.
        kept: the best of these, 1-based.
        valid_loss: mean -log p(item) over validation targets, nats, after that one.
        seconds: training time of these.
        selected: whether the block's adapter is this candidate's.
    """

    block: int
    value: float
    epochs: int
    kept: int
    valid_loss: float
    seconds: float
    selected: bool

    def record(self, setting: str) -> dict[str, Any]:
        """For the record of the update; the value stands under the setting's name."""
        return {
            "block": self.block,
            setting: self.value,
            "epochs": self.epochs,
            "valid_loss": self.valid_loss,
            "seconds": self.seconds,
            "selected": self.selected,
        }


class Candidates:
    """Values of one setting, and how far each of them has been trained."""

    def __init__(self, reader: Reader, stages: Mapping[float, Stage], checkpoint: Path, setting: str) -> None:
        """Remembers where all start.

        Args:
            reader: model and loss.
            stages: the stage of each candidate; all share their parts, whose values are where each of them starts.
            checkpoint: file that the candidates' own checkpoints are named after. They stay: an interrupted search goes
                on from them, and the caller removes them once the result is safe.
            setting: what the candidates are values of; a word in logs and file names.
        """
        self.values = list(stages)
        self._reader, self._stages, self._checkpoint, self._setting = reader, stages, checkpoint, setting
        self._first = stages[self.values[0]]
        self._starts = {name: part.snapshot() for name, part in self._first.parts.items()}
        self._trials: dict[float, Trial] = {}
        self._latest: float | None = None

    @property
    def num_epochs(self) -> int:
        """Of a whole training."""
        return self._first.epochs

    def train(self, value: float, epochs: int) -> Trial:
        """What a candidate has reached after so many epochs, the ones that it has trained already not repeated."""
        known = self._trials.get(value)
        if known is None or known.epochs < epochs:
            if value != self._latest:
                log.info("%s: %s %g", self._first.name, self._setting, value)
            self._latest = value
            # After an interruption a candidate may be further along than this.
            so_far = self._until(value, epochs)[0][:epochs]
            kept = kept_epoch(so_far)
            loss = so_far[kept - 1].valid_loss
            assert loss is not None, "a setting is chosen where there are validation targets"
            seconds = sum(record.seconds for record in so_far)
            known = Trial(self._first.block, value, epochs, kept, loss, seconds, selected=False)
            self._trials[value] = known
        return known

    def best(self) -> Trial:
        """Of all that were trained, the one with the least loss; of equal losses the smaller value."""
        return min(self._trials.values(), key=lambda trial: (trial.valid_loss, trial.value))

    def end(self) -> tuple[list[EpochRecord], int, list[Trial]]:
        """Leaves the best candidate's parameters in the model.

        Returns:
            Its epochs, which of them was kept (1-based), and the record of every candidate that was trained.
        """
        best = self.best()
        records, selected = self._until(best.value, best.epochs)
        log.info(
            "%s: %s %g has the least validation loss, %.3f nats",
            self._first.name, self._setting, best.value, best.valid_loss,
        )  # fmt: skip
        return records, selected, [replace(one, selected=one.value == best.value) for one in self._trials.values()]

    def _until(self, value: float, epochs: int) -> tuple[list[EpochRecord], int]:
        for name, part in self._first.parts.items():
            part.restore(self._starts[name])
        stage = self._stages[value]
        own = replace(stage, key=hash_of_json([stage.key, self._setting, value]))
        file = self._checkpoint.with_stem(f"{self._checkpoint.stem}_{self._setting}_{value:g}")
        wait_for_all()  # the first process may still be writing what all go on from
        return train_stage(self._reader.model, self._reader.likelihood, own, file, until=epochs)
