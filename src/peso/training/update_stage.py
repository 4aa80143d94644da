"""The stage of an update: what trains on a block, at which rates, and what holds it back."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from peso.data.dataset import IntArray
from peso.files import hash_of_json
from peso.lm.parameters import FlatParameters
from peso.methods.base import BlockView, ContinualMethod, Part
from peso.methods.pull import Pull
from peso.training.base import BACKBONE, LORA, MAGNITUDES, TOKEN_ROWS, training_rows, validation_rows
from peso.training.materials import Materials, Reader
from peso.training.stage import AddPenalty, Stage, tokens_of_a_pass


def update_stage(
    materials: Materials,
    reader: Reader,
    parts: dict[str, FlatParameters],
    method: ContinualMethod,
    view: BlockView,
    targets: IntArray,
    name: str,
) -> Stage:
    """What an update trains, on what, and what holds it back.

    Args:
        materials: data and configuration.
        reader: how the backbone reads items.
        parts: what trains, by name; its values are the anchor.
        method: decides penalty and pulls.
        view: the past.
        targets: int64, events to train on.
        name: of the stage.
    """
    config, training = materials.config, materials.config.training
    add_penalty: AddPenalty | None = None
    pulls: Mapping[Part, Pull] = {}
    if LORA in parts:
        held: tuple[Part, ...] = (LORA, TOKEN_ROWS)
        anchors = {part: parts[part].groups(parts[part].snapshot()) for part in held}
        lora = parts[LORA]
        penalty = method.penalty(anchors[LORA], view)
        if penalty is not None:
            add_penalty = partial(penalty.add_gradient, lora.groups(lora.data.detach()), lora.groups(lora.gradient))
        pulls = method.pulls(anchors, view)
    pulled = {part: parts[part].groups(parts[part].data.detach()) for part in pulls}

    def pull(rates: dict[str, float]) -> None:
        for part, towards_anchor in pulls.items():
            towards_anchor(pulled[part], rates[part])

    rates = {
        LORA: ("training.learning_rate", training.learning_rate),
        MAGNITUDES: ("training.learning_rate", training.learning_rate),
        TOKEN_ROWS: ("training.token_rows_learning_rate", training.token_rows_learning_rate),
        BACKBONE: ("full.learning_rate", config.full.learning_rate),
    }
    return Stage(
        name=name,
        key=hash_of_json([materials.update_id, name]),
        block=view.block,
        parts=parts,
        builder=reader.builder,
        train_rows=training_rows(materials, targets),
        valid_rows=validation_rows(materials, view.block),
        epochs=training.epochs,
        learning_rates={part: rates[part][1] for part in parts},
        batch_targets=training.batch_targets,
        weight_decay=training.weight_decay,
        training=training,
        seed=config.seed,
        undecayed=(MAGNITUDES,),  # factors, whose rest is at 1
        penalised_part=LORA,
        add_penalty=add_penalty,
        pull=pull if pulls else None,
        share=method.share,
        lead=method.lead,
        shuffled_share=materials.shuffled_share,
        tokens_of_a_pass=tokens_of_a_pass(reader.model, training),
        rate_keys={part: rates[part][0] for part in parts},
    )


def at_every_rate(stage: Stage) -> dict[float, Stage]:
    """By factor, the stage at the rates that the block may choose from; the first where it cannot choose."""
    factors = stage.training.rate_factors
    return {factor: stage.at_rates(factor) for factor in (factors if len(stage.valid_rows) else factors[:1])}


def with_strength(stage: Stage, strength: float) -> Stage:
    """The stage under a key of its own, so that checkpoints of several strengths are told apart."""
    return replace(stage, key=hash_of_json([stage.key, "strength", strength]))
