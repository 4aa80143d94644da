"""How a block chooses among the candidates for a setting, on its own validation targets.

Rates, `training.rate_factors`, are walked: a low rate is behind after an epoch or two whether or not it ends best, so
what is compared are whole trainings, of the first factor and of its neighbours, and from a better neighbour the walk
goes on. Strengths of an anchor, `proximal.strength = "auto"`, are raced: all train side by side at the same rate, and
after each epoch the worse ones are dropped.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from peso.training.candidates import Candidates, Trial
from peso.training.epochs import EpochRecord
from peso.training.materials import Reader
from peso.training.stage import Stage

Setting = Literal["rate_factor", "strength"]
RATE: Setting = "rate_factor"
"""Of the learning rates."""
STRENGTH: Setting = "strength"
"""Of the anchor."""
_NEVER_DROPPED = 0.0
"""Strength 0 is what the method "single" would have reached from the same state: what is kept is never worse."""
_DROPPED_PER_EPOCH = 2


def passes_over_block(setting: Setting, num_candidates: int, epochs: int) -> int:
    """Epochs of all candidates together; where there is no choice, those of the one.

    Of a race the most there can be; of a walk those of its start and both neighbours (it takes more where it goes on,
    fewer where a neighbour falls behind).
    """
    if num_candidates <= 1:
        return epochs
    if setting == RATE:
        return min(num_candidates, 3) * epochs
    alive = [num_candidates]
    while len(alive) < epochs:
        alive.append(min(alive[-1], 1 + max(1, alive[-1] - _DROPPED_PER_EPOCH)))
    return sum(alive)


def train_with_best(
    reader: Reader, stages: Mapping[float, Stage], checkpoint: Path, setting: Setting
) -> tuple[list[EpochRecord], int, list[Trial]]:
    """Trains a block with several values of a setting, and leaves the best one's parameters in the model.

    Args:
        reader: model and loss.
        stages: the stage of each candidate, as of `Candidates`; a walk starts at the first.
        checkpoint: as of `Candidates`.
        setting: what the candidates are values of.

    Returns:
        The winner's epochs, which of them was kept (1-based), and the record of every candidate that was trained.
    """
    candidates = Candidates(reader, stages, checkpoint, setting)
    if setting == RATE:
        walk(candidates)
    else:
        race(candidates)
    return candidates.end()


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
        kept = {trial.value for trial in ranked[: max(1, len(alive) - _DROPPED_PER_EPOCH)]} | {_NEVER_DROPPED}
        alive = [value for value in alive if value in kept]
