"""`proximal.strength = "auto"`: the strength of one block's anchor, chosen on that block's validation targets.

Every candidate trains the block from the same anchor with the same order and dropout, and after each epoch the worse
ones are dropped: the validation loss of every one stands in the record, and no epoch is trained twice. Strength 0 is
one of the candidates and is never dropped, so what is kept has at most the validation loss that the method "single"
would have reached from the same state.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from peso.files import hash_of_json
from peso.training.epochs import EpochRecord, kept_epoch
from peso.training.materials import Reader
from peso.training.stage import Stage
from peso.training.trainer import train_stage

log = logging.getLogger(__name__)

DROPPED_PER_EPOCH = 2
"""Candidates that end after each epoch, while the best one and strength 0 go on."""


@dataclass(frozen=True)
class StrengthTrial:
    """One candidate of a block.

    Attributes:
        block: the block trained on.
        strength: lambda.
        epochs: passes over the block before it was dropped, or all of them.
        valid_loss: mean -log p(item) over validation targets, nats, after the best of these.
        seconds: training time of these.
        selected: whether the block's adapter is this candidate's.
    """

    block: int
    strength: float
    epochs: int
    valid_loss: float
    seconds: float
    selected: bool


def passes_over_block(num_candidates: int, epochs: int) -> int:
    """Epochs that are trained at most, of all candidates together; where there is no choice, those of the one."""
    if num_candidates == 0:
        return epochs
    alive = [num_candidates]
    while len(alive) < epochs:
        alive.append(min(alive[-1], 1 + max(1, alive[-1] - DROPPED_PER_EPOCH)))  # strength 0 beside the kept ones
    return sum(alive)


def train_with_best_strength(
    reader: Reader, stages: Mapping[float, Stage], checkpoint: Path
) -> tuple[list[EpochRecord], int, list[StrengthTrial]]:
    """Trains a block with several strengths, and leaves the best one's parameters in the model.

    Args:
        reader: model and loss.
        stages: the stage of each strength, 0 among them; all share their parts, whose values are the anchor, and
            differ in the anchor's hold alone.
        checkpoint: file that the candidates' own checkpoints are named after. They stay: an interrupted search goes on
            from them, and the caller removes them once the result is safe.

    Returns:
        The winner's epochs, which of them was kept (1-based), and the record of every candidate.
    """
    first = stages[0]
    anchors = {name: part.snapshot() for name, part in first.parts.items()}
    alive = list(stages)
    trials: dict[float, StrengthTrial] = {}

    def train(strength: float, epochs: int) -> tuple[list[EpochRecord], int]:
        for name, part in first.parts.items():
            part.restore(anchors[name])
        log.info("%s: strength %g", first.name, strength)
        stage = stages[strength]
        own = replace(stage, key=hash_of_json([stage.key, strength]))
        file = checkpoint.with_stem(f"{checkpoint.stem}_strength_{strength:g}")
        return train_stage(reader.model, reader.likelihood, own, file, until=epochs)

    for epochs in range(1, first.epochs + 1):
        for strength in alive:
            # After an interruption a candidate may be further along than this round.
            so_far = train(strength, epochs)[0][:epochs]
            loss = so_far[kept_epoch(so_far) - 1].valid_loss
            assert loss is not None, "strengths are chosen among where there are validation targets"
            seconds = sum(record.seconds for record in so_far)
            trials[strength] = StrengthTrial(first.block, strength, epochs, loss, seconds, selected=False)
        ranked = sorted(alive, key=lambda strength: (trials[strength].valid_loss, strength))
        kept = ranked[: max(1, len(alive) - DROPPED_PER_EPOCH)]
        alive = [strength for strength in alive if strength in kept or strength == 0]
    best = min(trials, key=lambda strength: (trials[strength].valid_loss, strength))
    records, selected = train(best, trials[best].epochs)
    log.info("%s: strength %g has the least validation loss, %.3f nats", first.name, best, trials[best].valid_loss)
    return records, selected, [replace(trial, selected=trial.strength == best) for trial in trials.values()]
