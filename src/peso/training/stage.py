"""A stage of training as a value: some flat parameters, some targets, a number of epochs, and how."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from transformers import PreTrainedModel

from peso.config import TrainingConfig
from peso.files import hash_of_json
from peso.lm.batching import batches_of_similar_length
from peso.lm.parameters import FlatParameters
from peso.lm.rows import Rows
from peso.lm.sequences import SequenceBuilder
from peso.lm.sharding import is_sharded
from peso.seeding import derive_seed
from peso.training.epochs import refuse_divergence
from peso.training.pulled_steps import Pull

AddPenalty = Callable[[], None]
"""Adds the gradient of a penalty at the current parameters to one part's gradient."""


@dataclass(frozen=True, eq=False)
class Stage:
    """What to train, on what, and how.

    Attributes:
        name: names the stage in seeds and logs, such as "block_2".
        key: hash of everything that decides the stage; a checkpoint of another key is refused.
        block: the block trained on.
        parts: flat parameters by name; all else is frozen.
        builder: writes rows as tokens.
        train_rows: training targets.
        valid_rows: validation targets.
        epochs: passes over the training targets.
        learning_rates: peak rate of each part.
        batch_targets: targets per optimizer step.
        weight_decay: decoupled decay.
        undecayed: parts without decay.
        training: passes, precision, warm-up, clipping.
        seed: the run's seed.
        penalised_part: the part whose gradient the penalty adds to.
        add_penalty: does so, after the gradient of the cross-entropy was clipped; None where there is no penalty.
        pull: follows the optimizer's steps (see `PulledSteps`).
        share: how much of the way from where the stage starts to where training is an epoch's version goes; "auto"
            chooses it after the last epoch by the validation loss.
        lead: how much of the rest of the way the version that recommends goes beyond that one.
        tokens_of_a_pass: what a pass costs besides its tokens, in tokens: batches are cut into passes where padding
            costs more. 0 never cuts.
        shuffled_share: share of the users whose training targets each epoch shows in another order.
        rate_keys: the key of the configuration that sets each part's rate, for who must lower it.
    """

    name: str
    key: str
    block: int
    parts: dict[str, FlatParameters]
    builder: SequenceBuilder
    train_rows: Rows
    valid_rows: Rows
    epochs: int
    learning_rates: dict[str, float]
    batch_targets: int
    weight_decay: float
    training: TrainingConfig
    seed: int
    undecayed: tuple[str, ...] = ()
    penalised_part: str = ""
    add_penalty: AddPenalty | None = None
    pull: Pull | None = None
    share: float | Literal["auto"] = 1.0
    lead: float = 0.0
    tokens_of_a_pass: int = 0
    shuffled_share: float = 0.0
    rate_keys: Mapping[str, str] = field(default_factory=dict)

    def at_rates(self, factor: float) -> "Stage":
        """The stage at learning rates so many times as high, with a key of its own."""
        rates = {part: factor * rate for part, rate in self.learning_rates.items()}
        return replace(self, key=hash_of_json([self.key, factor]), learning_rates=rates)

    def refuse_divergence(self, value: float, what: str, epoch: int, step: str = "") -> None:
        """See `peso.training.epochs.refuse_divergence`."""
        rates = {self.rate_keys.get(part, part): rate for part, rate in self.learning_rates.items()}
        where = f"block {self.block}, stage {self.name}, epoch {epoch + 1} of {self.epochs}{step}"
        refuse_divergence(value, what, where, rates)


TOKENS_OF_A_PASS = 320
"""What a pass over the embedded backbone costs on two cores of a CPU besides its tokens, in tokens; measured."""


def tokens_of_a_pass(model: PreTrainedModel, training: TrainingConfig) -> int:
    """What `Stage.tokens_of_a_pass` should be.

    Args:
        model: ready to train; one in shards makes as many passes in every process, and an accelerator likes few.
        training: lines that rows share have no padding to save.
    """
    is_cut = model.device.type == "cpu" and not is_sharded(model) and not training.line_tokens
    return TOKENS_OF_A_PASS if is_cut else 0


def batches_of_epoch(stage: Stage, lengths: np.ndarray, weights: np.ndarray, epoch: int) -> list[np.ndarray]:
    """Row numbers of each batch of an epoch.

    Args:
        stage: names the order.
        lengths: int64 [R], tokens of each training row.
        weights: int64 [R], targets of each.
        epoch: 0-based.
    """
    seed = derive_seed(stage.seed, "order", stage.name, epoch)
    return batches_of_similar_length(lengths, weights, stage.batch_targets, seed)
