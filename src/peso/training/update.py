"""One update: the adapter of block t - 1 becomes the adapter of block t."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from peso.data.examples import targets_of_block
from peso.lm.adapters import (
    CARRIED,
    carried_of,
    read_token_rows,
    save_adapter,
    stored_token_rows,
    stored_update,
    write_token_rows,
)
from peso.lm.low_rank import LowRank, read_low_rank, write_low_rank
from peso.lm.merging import merge_adapter
from peso.lm.parameters import FlatParameters
from peso.lm.past_adapters import freeze_past
from peso.methods.base import ContinualMethod
from peso.training.averaging import go_ahead, served_share
from peso.training.base import (
    BACKBONE,
    BASE_BLOCK,
    Base,
    adapter_parts,
    load_base,
    load_state,
    own_memory,
    save_state,
)
from peso.training.block_view import RunView
from peso.training.materials import Materials
from peso.training.search import NO_ANCHOR, Found, search_rates, search_strengths
from peso.training.stage import Stage
from peso.training.update_record import Update, record_update
from peso.training.update_stage import at_every_rate, update_stage, with_strength


@dataclass(frozen=True)
class Trained:
    """A model after its update.

    Attributes:
        model: as the next block starts from it.
        update: the record; `adapter_bytes` is not filled in yet.
        go_ahead: moves the model on to the version that recommends; None where both are one.
    """

    model: PreTrainedModel | PeftModel
    update: Update
    go_ahead: Callable[[], None] | None = None


@dataclass
class _Log:
    """The lists of an `Update`, and what is left to do to the model."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    movement: list[dict[str, Any]] = field(default_factory=list)
    strengths: list[dict[str, Any]] = field(default_factory=list)
    rates: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    served_share: float = 1.0
    go_ahead: Callable[[], None] | None = None

    def extend(self, leg: "_Log") -> None:
        self.epochs += leg.epochs
        self.movement += leg.movement
        self.strengths += leg.strengths
        self.rates += leg.rates
        self.seconds += leg.seconds
        self.served_share, self.go_ahead = leg.served_share, leg.go_ahead


def run_update(
    materials: Materials, base: Base, method: ContinualMethod, adapters: Path, block: int, checkpoint: Path
) -> Trained:
    """Makes the state after a block.

    Args:
        materials: data and configuration.
        base: what every method started from.
        method: decides what is trained, and how.
        adapters: the run's folder of adapters, those of earlier blocks inside.
        block: 0 gives v_0 itself.
        checkpoint: file of the state after each epoch.

    Returns:
        The model to save, and the record of the update.
    """
    if block == BASE_BLOCK and carried_of(adapter := base.folder / "adapter") != adapter:  # of another workspace
        adapted, _ = load_base(materials, base, carried_of(adapter))
        ahead = partial(_put, adapted, adapter, materials.config.adapter.r)
        return Trained(adapted, Update(block, 0.0, 0, [], []), ahead)
    if block == BASE_BLOCK or method.trains == "nothing":
        return Trained(load_state(materials, base, _before(adapters, block))[0], Update(block, 0.0, 0, [], []))
    train = _train_backbone if method.trains == "all_weights" else _train_adapter
    model, log = train(materials, base, method, adapters, block, checkpoint)
    update = Update(block, log.seconds, 0, log.epochs, log.movement, log.strengths, log.rates, log.served_share)
    return Trained(model, update, log.go_ahead)


def _put(model: PeftModel, adapter: Path, rank: int) -> None:
    write_low_rank(model, stored_update(adapter, rank).to(model.device))
    write_token_rows(model, stored_token_rows(adapter))


def _before(adapters: Path, block: int) -> Path | None:
    return adapters / f"block_{block - 1}" if block > BASE_BLOCK else None


def _train_backbone(
    materials: Materials, base: Base, method: ContinualMethod, adapters: Path, block: int, checkpoint: Path
) -> tuple[PreTrainedModel, _Log]:
    model, reader = load_state(materials, base, _before(adapters, block))
    # In float32: a backbone in bfloat16 would lose most small steps.
    whole = merge_adapter(model) if isinstance(model, PeftModel) else reader.model.float()
    whole.requires_grad_(True)
    parts = {BACKBONE: FlatParameters(whole.named_parameters())}
    view = RunView(materials, reader, None, adapters, block)
    targets = method.examples(materials.dataset, block, materials.config.seed)
    stage = update_stage(materials, reader, parts, method, view, targets, f"block_{block}")
    at_rates = at_every_rate(stage)
    log = _trained(at_rates, partial(search_rates, reader, at_rates, checkpoint))
    own_memory(whole)
    return whole, log


def _train_adapter(
    materials: Materials, base: Base, method: ContinualMethod, adapters: Path, block: int, checkpoint: Path
) -> tuple[PeftModel, _Log]:
    model, reader = load_base(materials, base)
    view = RunView(materials, reader, model, adapters, block)
    legs = method.legs(view)
    log = _Log()
    assert len(legs) == 1 or not any(leg.frozen for leg in legs), "legs that are averaged keep no past of their own"
    learned: list[LowRank] = []
    rows: list[dict[str, Tensor]] = []
    for number, leg in enumerate(legs):
        write_low_rank(model, leg.current)
        write_token_rows(model, stored_token_rows(carried_of(adapters / f"block_{leg.token_rows_after}")))
        freeze_past(model, leg.frozen, leg.learns_magnitudes)
        parts = adapter_parts(model, trains_a=method.trains != "b_only")
        view.begin(parts)
        # A method's only leg keeps the block's plain name, on which order and dropout depend.
        name = f"block_{block}" if len(legs) == 1 else f"block_{block}_leg_{number}"
        candidates = method.candidates() if len(targets_of_block(materials.dataset, block, "valid")) else {}
        stage_of = partial(update_stage, materials, reader, parts, view=view, targets=leg.targets, name=name)
        stages = {one: at_every_rate(with_strength(stage_of(held), one)) for one, held in candidates.items()}
        of_leg = checkpoint if len(legs) == 1 else checkpoint.with_stem(f"{checkpoint.stem}_leg_{number}")
        if stages:
            log.extend(_trained(stages[NO_ANCHOR], partial(search_strengths, reader, stages, of_leg)))
        else:
            at_rates = at_every_rate(stage_of(method))
            log.extend(_trained(at_rates, partial(search_rates, reader, at_rates, of_leg)))
        view.close()
        learned.append(read_low_rank(model))
        rows.append(read_token_rows(model))
    if len(legs) > 1:
        share = 1 / len(legs)
        freeze_past(model, [one.scaled(share) for one in learned[:-1]], learns_magnitudes=False)
        write_low_rank(model, learned[-1].scaled(share))
        write_token_rows(model, {name: torch.stack([one[name] for one in rows]).mean(0) for name in rows[0]})
    return model, log


def _trained(stages: Mapping[float, Stage], search: Callable[[], Found]) -> _Log:
    """Leaves in the model what a search among stages over the same parts finds."""
    stage = next(iter(stages.values()))
    anchors = {name: part.snapshot() for name, part in stage.parts.items()}
    found = search()
    epochs = [asdict(record) | {"selected": record.epoch == found.kept} for record in found.epochs]
    movement = [entry for name, part in stage.parts.items() for entry in _movement(stage.block, part, anchors[name])]
    log = _Log(epochs, movement, found.strengths, found.rates, found.seconds)
    share = found.epochs[found.kept - 1].share
    log.served_share = served_share(share, stage.lead)
    if log.served_share != share:
        log.go_ahead = partial(go_ahead, stage.parts, anchors, share, stage.lead)
    return log


def write_update(folder: Path, trained: Trained, materials: Materials) -> Update:
    """Fills an adapter folder; the record in it makes the folder reusable by runs of equal training.

    Args:
        folder: an existing, empty directory. What the next block starts from goes into `carried` inside, if the
            version that recommends is another.
        trained: what to save: an adapter, or a backbone whose weights have changed; left as the version that
            recommends.
        materials: name what the adapters are the result of, and the numbers they are stored in.
    """
    model, precision = trained.model, materials.config.adapter.stored_precision
    if isinstance(model, PeftModel):
        if trained.go_ahead is not None:
            (folder / CARRIED).mkdir()
            save_adapter(model, folder / CARRIED, precision)
            trained.go_ahead()
        size = save_adapter(model, folder, precision)
    else:
        size = save_state(model, folder)
    written = replace(trained.update, adapter_bytes=size)
    record_update(folder, written, materials.update_id)
    return written


def _movement(block: int, part: FlatParameters, anchor: Tensor) -> list[dict[str, Any]]:
    rows = []
    for stack in part.stacks:
        anchor_GN = stack.of(anchor)
        distances = torch.linalg.vector_norm(stack.of(part.snapshot()) - anchor_GN, dim=1).tolist()
        norms = torch.linalg.vector_norm(anchor_GN, dim=1).tolist()
        rows += [
            {"block": block, "group": group, "distance": distance, "anchor_norm": norm}
            for group, distance, norm in zip(stack.names, distances, norms, strict=True)
        ]
    return rows
