"""How a block chooses among the candidates for a setting, on its own validation targets.

Rates, `training.rate_factors`, are walked: a low rate is behind after an epoch or two whether or not it ends best, so
what is compared are whole trainings, of the first factor and of its neighbours, and from a better neighbour the walk
goes on. Strengths of an anchor, `proximal.strength = "auto"`, are raced: all train side by side at the same rate, and
after each epoch the worse ones are dropped. That rate is the one which training without an anchor has walked to, and
as a held adapter may bear another, the walk goes on from there at the strength that won. No training is done twice.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peso.training.candidates import Candidates
from peso.training.epochs import EpochRecord
from peso.training.materials import Reader
from peso.training.stage import Stage
from peso.training.trainer import train_stage

log = logging.getLogger(__name__)

RATE, STRENGTH = "rate_factor", "strength"
"""What candidates are values of."""
NO_ANCHOR = 0.0
"""The strength of the method "single": what is kept is never worse on validation than it would be from there."""
_DROPPED_PER_EPOCH = 2


@dataclass(frozen=True)
class Found:
    """What a search left in the model, and what it took.

    Attributes:
        epochs: of the candidate that was kept.
        kept: which of them was, 1-based.
        rates: a row per factor that was tried for the learning rates.
        strengths: a row per strength that was tried for the anchor.
        seconds: training time of all candidates.
    """

    epochs: list[EpochRecord]
    kept: int
    rates: list[dict[str, Any]]
    strengths: list[dict[str, Any]]
    seconds: float


def passes_over_block(num_rates: int, num_strengths: int, epochs: int) -> int:
    """Epochs of all candidates together; where there is no choice, those of the one.

    Of a race the most there can be; of a walk those of its start and both neighbours (it takes more where it goes on,
    fewer where a neighbour falls behind).
    """
    of_neighbours = min(num_rates - 1, 2) * epochs
    if num_strengths <= 1:
        return epochs + of_neighbours
    alive = [num_strengths]
    while len(alive) < epochs:
        alive.append(min(alive[-1], 1 + max(1, alive[-1] - _DROPPED_PER_EPOCH)))
    return sum(alive) + 2 * of_neighbours


def search_rates(reader: Reader, stages: Mapping[float, Stage], checkpoint: Path) -> Found:
    """Trains a block at one or several learning rates, and leaves the best one's parameters in the model.

    Args:
        reader: model and loss.
        stages: by factor of the rates, as of `Candidates`; the walk starts at the first.
        checkpoint: as of `Candidates`.
    """
    if len(stages) == 1:
        (stage,) = stages.values()
        epochs, kept = train_stage(reader.model, reader.likelihood, stage, checkpoint)
        return Found(epochs, kept, [], [], sum(epoch.seconds for epoch in epochs))
    candidates = Candidates(reader, stages, checkpoint, RATE, {})
    walk(candidates)
    warn_at_an_end(candidates)
    return Found(*candidates.end(), candidates.records(), [], sum(candidates.seconds().values()))


def search_strengths(reader: Reader, stages: Mapping[float, Mapping[float, Stage]], checkpoint: Path) -> Found:
    """The same with several strengths of an anchor at several learning rates.

    Args:
        reader: model and loss.
        stages: by strength, 0 among them, and by factor of the rates; each walk but the first starts where the one
            before ended.
        checkpoint: as of `Candidates`.
    """
    free = _walked(reader, stages[NO_ANCHOR], checkpoint, NO_ANCHOR)
    factor = free.best().value
    free.restart()
    strengths = Candidates(
        reader, {one: at[factor] for one, at in stages.items()}, checkpoint, STRENGTH, {RATE: factor}
    )
    race(strengths)
    won = strengths.best().value
    last = free
    if won != NO_ANCHOR:
        strengths.restart()
        last = _walked(reader, {factor: stages[won][factor], **stages[won]}, checkpoint, won)
    warn_at_an_end(last)  # the walk without an anchor may have ended elsewhere
    rates = last.records() if last is free else free.records(is_best_selected=False) + last.records()
    if len(stages[won]) == 1:
        rates = []
    seconds = free.seconds() | strengths.seconds() | last.seconds()
    return Found(*last.end(), rates, strengths.records(), sum(seconds.values()))


def _walked(reader: Reader, stages: Mapping[float, Stage], checkpoint: Path, strength: float) -> Candidates:
    candidates = Candidates(reader, stages, checkpoint, RATE, {STRENGTH: strength})
    walk(candidates)
    return candidates


def walk(candidates: Candidates) -> None:
    """Trains the first candidate, then its neighbours one way as long as each is better than the last, then the other.

    The start and whatever turns out best are trained for all epochs; a neighbour ends early once it would stay behind
    the best so far even if every epoch left gained as much as its last one.
    """
    start = candidates.train(candidates.values[0], candidates.num_epochs)
    ladder = sorted(candidates.values)
    # Who gets better to the end may bear more, who does not has too much already.
    upwards_first = start.kept == candidates.num_epochs
    for upwards in (upwards_first, not upwards_first):
        place = ladder.index(candidates.best().value)
        for value in ladder[place + 1 :] if upwards else reversed(ladder[:place]):
            _train_unless_behind(candidates, value)
            if candidates.best().value != value:
                break


def warn_at_an_end(candidates: Candidates) -> None:
    """Says so where the best of several rates is the lowest or highest that may be tried."""
    best = candidates.best()
    ladder = sorted(candidates.values)
    for end, word in ((ladder[0], "below"), (ladder[-1], "above")) if len(ladder) > 1 else ():
        if best.value == end:
            log.warning(
                "Block %d: %s %g is at an end of training.rate_factors; one %s it may do better.",
                best.block, candidates.setting, best.value, word,
            )  # fmt: skip


def _train_unless_behind(candidates: Candidates, value: float) -> None:
    to_beat, before = candidates.best().valid_loss, math.inf
    for epoch in range(1, candidates.num_epochs + 1):
        reached = candidates.train(value, epoch).valid_loss
        left = candidates.num_epochs - epoch
        if left and reached - left * (before - reached) > to_beat:
            return
        before = reached


def race(candidates: Candidates) -> None:
    """Trains all an epoch at a time and drops the worst two after each, but neither the best nor strength 0."""
    alive, epochs = candidates.values, 0
    while epochs < candidates.num_epochs:
        epochs = epochs + 1 if len(alive) > 1 else candidates.num_epochs  # nobody is left to compare with
        trials = [candidates.train(value, epochs) for value in alive]
        ranked = sorted(trials, key=lambda trial: (trial.valid_loss, trial.value))
        kept = {trial.value for trial in ranked[: max(1, len(alive) - _DROPPED_PER_EPOCH)]} | {NO_ANCHOR}
        alive = [value for value in alive if value in kept]
