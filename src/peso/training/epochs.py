"""Epochs of a training stage: what is recorded of one, which is kept, and what ends a stage that diverges."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peso.errors import TrainingError


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did.

    Attributes:
        block: the block trained on.
        epoch: 1-based.
        train_loss: mean -log p(item) over training targets, nats; at the training temperature, and with the end token's
            where that trains.
        valid_loss: mean -log p(item) over validation targets after the epoch, nats; without the penalty. None where the
            block has none.
        gradient_ratio: mean over steps of what the proximal term does over what the cross-entropy does: of a penalty
            |its gradient| / |gradient of the cross-entropy| on the penalised parameters, of a pull |its move| / |the
            optimizer's move since the pull before| on all; at every 32nd step, None without either.
        seconds: training time, validation included.
        share: how much of the way from where the stage started to where the epoch ended its version goes.
    """

    block: int
    epoch: int
    train_loss: float
    valid_loss: float | None
    gradient_ratio: float | None
    seconds: float
    share: float = 1.0


def kept_epoch(records: Sequence[EpochRecord]) -> int:
    """The epoch (1-based) of the least validation loss, the first of equal ones; without validation targets the last.

    Args:
        records: of every epoch so far, at least one.
    """
    losses = [record.valid_loss for record in records if record.valid_loss is not None]
    return 1 + losses.index(min(losses)) if losses else len(records)


def refuse_divergence(value: float, what: str, where: str, rates: Mapping[str, float]) -> None:
    """Ends a training whose numbers are infinite or no numbers any more: no later step would mend them.

    Args:
        value: a loss, or what else shows it.
        what: its name.
        where: block, stage, epoch and step.
        rates: peak learning rates by key of the configuration.

    Raises:
        TrainingError: the value is not finite.
    """
    if math.isfinite(value):
        return
    named = " and ".join(f"{key} = {rate:g}" for key, rate in rates.items())
    raise TrainingError(
        f"{where}: {what} is {value}, so training has diverged with {named}; lower the learning rate and run again."
    )
