"""The candidates for a setting of one block's training: each starts from the same state, and none trains twice.

Every candidate trains with the same order and dropout, keeps a checkpoint of its own, and its validation loss after the
best of its epochs stands in the record. Who is trained how long is `peso.training.search`'s business.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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

    def record(self, setting: str, at: Mapping[str, float]) -> dict[str, Any]:
        """For the record of the update; the value stands under the setting's name, beside what all share."""
        return {
            "block": self.block,
            setting: self.value,
            **at,
            "epochs": self.epochs,
            "valid_loss": self.valid_loss,
            "seconds": self.seconds,
            "selected": self.selected,
        }


class Candidates:
    """Values of one setting, and how far each of them has been trained."""

    def __init__(
        self, reader: Reader, stages: Mapping[float, Stage], checkpoint: Path, setting: str, at: Mapping[str, float]
    ) -> None:
        """Remembers where all start.

        Args:
            reader: model and loss.
            stages: the stage of each candidate; all share their parts, whose values are where each of them starts.
            checkpoint: file that the candidates' own checkpoints are named after, with the stage's key. They stay: an
                interrupted search goes on from them, another one over the same stages finds them trained, and the
                caller removes them once the result is safe.
            setting: what the candidates are values of; a word in logs and records.
            at: other settings, which all candidates share; for logs and records.
        """
        self.values, self.setting, self.at = list(stages), setting, at
        self._reader, self._stages, self._checkpoint = reader, stages, checkpoint
        self._first = stages[self.values[0]]
        self._starts = {name: part.snapshot() for name, part in self._first.parts.items()}
        self._where = "".join(f", {name} {value:g}" for name, value in at.items())
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
                log.info("%s: %s %g%s", self._first.name, self.setting, value, self._where)
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

    def end(self) -> tuple[list[EpochRecord], int]:
        """Leaves the best candidate's parameters in the model.

        Returns:
            Its epochs, and which of them was kept (1-based).
        """
        best = self.best()
        records, selected = self._until(best.value, best.epochs)
        log.info(
            "%s: %s %g%s has the least validation loss, %.3f nats",
            self._first.name, self.setting, best.value, self._where, best.valid_loss,
        )  # fmt: skip
        return records, selected

    def records(self, is_best_selected: bool = True) -> list[dict[str, Any]]:
        """One per candidate that was trained; `selected` is the best one, unless another search went on from it."""
        best = self.best().value
        trials = (replace(one, selected=is_best_selected and one.value == best) for one in self._trials.values())
        return [trial.record(self.setting, self.at) for trial in trials]

    def seconds(self) -> dict[str, float]:
        """Training time of each candidate, by the key of its stage."""
        return {self._stages[value].key: trial.seconds for value, trial in self._trials.items()}

    def restart(self) -> None:
        """Puts the parameters back to where all start."""
        for name, part in self._first.parts.items():
            part.restore(self._starts[name])

    def _until(self, value: float, epochs: int) -> tuple[list[EpochRecord], int]:
        self.restart()
        stage = self._stages[value]
        file = self._checkpoint.with_stem(f"{self._checkpoint.stem}_{stage.key}")
        wait_for_all()  # the first process may still be writing what all go on from
        return train_stage(self._reader.model, self._reader.likelihood, stage, file, until=epochs)
