"""What an anchor does to one update: is it felt beside the loss, and does the adapter end elsewhere than without it?

From v_0 the first update is trained without an anchor, and again under every form at some strengths; order, dropout and
learning rates, those that training without an anchor chooses, are the same, so that without an anchor the same adapter
comes out. Three numbers tell what an anchor did: its share of
a step's gradient (of a pull: of the step's move), the length of A's and B's way beside the way without it, and how far
apart the two ends are, in that way's length.

Source: ours; what is measured is Eq. 12 of PESO and its other forms (`peso.methods.proximal`, `peso.methods.pull`).
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peso.config import ProximalConfig, RunConfig, make_config
from peso.data.examples import require_test_targets
from peso.lm.low_rank import LowRank, read_low_rank
from peso.methods.base import ContinualMethod
from peso.methods.peso import Peso
from peso.methods.proximal import softmax_kl
from peso.methods.single import Single
from peso.training.base import BASE_BLOCK, Base, load_base
from peso.training.base_training import prepare_base
from peso.training.materials import Materials, load_materials
from peso.training.update import run_update, write_update
from peso.training.update_record import Update
from peso.types import ProximalForm

STRENGTHS: dict[ProximalForm, tuple[float, ...]] = {
    "paper": (0.5, 2.0, 8.0),
    "official": (0.5, 2.0, 8.0),
    "normalised": (0.001, 0.01, 0.1),
    "l2": (0.001, 0.01, 0.1),
    "decoupled": (1.0, 3.0, 10.0),
}
"""Strengths of each form; the paper's where the form is the paper's."""
CONTROL: tuple[ProximalForm, float] = ("paper", 1e-6)
"""A gradient too small to mean anything: what is seen under it, training does by itself with any rounding."""


@dataclass(frozen=True)
class Activity:
    """One update under an anchor.

    Attributes:
        hidden_size: width of the backbone.
        rank: r.
        form: of the anchor.
        strength: lambda.
        rate_factor: of the learning rates, that of training without an anchor.
        gradient_ratio: see `peso.training.epochs.EpochRecord`; mean over epochs.
        distance_ratio: |A, B after - before| over the same without an anchor.
        difference_ratio: |A, B after - A, B after without an anchor| over the distance travelled without it.
        valid_loss: of the kept epoch, nats.
        valid_loss_without: the same without an anchor.
    """

    hidden_size: int
    rank: int
    form: ProximalForm
    strength: float
    rate_factor: float
    gradient_ratio: float
    distance_ratio: float
    difference_ratio: float
    valid_loss: float
    valid_loss_without: float


@dataclass(frozen=True)
class Rounding:
    """The softmax-KL of an update's A and B as a difference of two log-softmaxes, against the centred form in float64.

    Attributes:
        hidden_size: width of the backbone.
        rank: r.
        dtype: what the difference was computed in.
        value_ratio: summed over groups, over the exact sum.
        gradient_cosine: between both gradients, over all groups together.
    """

    hidden_size: int
    rank: int
    dtype: str
    value_ratio: float
    gradient_cosine: float


def config_of_size(file: Path | None, hidden_size: int, rank: int) -> RunConfig:
    """The base configuration at another width and rank; the adapter's scale stays.

    Raises:
        ConfigError: the file, or the size, is wrong.
    """
    adapter = make_config(file).adapter
    scaled = {"r": rank, "lora_alpha": max(1, adapter.lora_alpha * rank // adapter.r)}
    return make_config(file, {"method": "peso", "backbone": {"hidden_size": hidden_size}, "adapter": scaled})


def measure_activity(
    workspace: Path, file: Path | None, sizes: Sequence[tuple[int, int]]
) -> tuple[list[Activity], list[Rounding], str]:
    """Trains one update per anchor and size; bases are found or trained.

    Args:
        workspace: with data.
        file: configuration under all; None for the defaults.
        sizes: width of the embedded backbone and rank of the adapter.

    Returns:
        What was measured, of each size the control first, and the data's fingerprint.

    Raises:
        PesoError: the data or the configuration are not usable.
    """
    activities: list[Activity] = []
    roundings: list[Rounding] = []
    fingerprint = ""
    for hidden_size, rank in sizes:
        config = config_of_size(file, hidden_size, rank)
        materials = load_materials(workspace, config)
        require_test_targets(materials.dataset, [BASE_BLOCK + 1], "the measurement of anchors")
        fingerprint = materials.data_fingerprint
        base = prepare_base(materials, workspace / "bases")
        before = read_low_rank(load_base(materials, base)[0])
        free, without = _first_update(materials, base, Single())
        factor = next(
            (trial["rate_factor"] for trial in without.rates if trial["selected"]), config.training.rate_factors[0]
        )
        at_rate = replace(materials, config=_with_rate(config, factor))
        anchors = [(form, strength) for form, strengths in STRENGTHS.items() for strength in strengths]
        for form, strength in (CONTROL, *anchors):
            anchor = ProximalConfig(form=form, strength=strength, share=1.0)
            held, update = _first_update(at_rate, base, Peso(anchor))
            ratios = [epoch["gradient_ratio"] for epoch in update.epochs]
            way = _distance(free, before)
            activities.append(
                Activity(
                    hidden_size, rank, form, strength, factor,
                    gradient_ratio=sum(ratios) / len(ratios),
                    distance_ratio=_distance(held, before) / way,
                    difference_ratio=_distance(held, free) / way,
                    valid_loss=_kept(update), valid_loss_without=_kept(without),
                )
            )  # fmt: skip
        roundings += [
            Rounding(hidden_size, rank, str(dtype).removeprefix("torch."), *_rounding(free, before, dtype))
            for dtype in (torch.bfloat16, torch.float32)
        ]
    return activities, roundings, fingerprint


def _with_rate(config: RunConfig, factor: float) -> RunConfig:
    training = config.training.model_copy(update={"rate_factors": (factor,)})
    return config.model_copy(update={"training": training})


def _first_update(materials: Materials, base: Base, method: ContinualMethod) -> tuple[LowRank, Update]:
    """A and B after block 1, and the record of the update."""
    with tempfile.TemporaryDirectory() as name:
        adapters, checkpoint = Path(name), Path(name) / "checkpoint.safetensors"
        first = adapters / f"block_{BASE_BLOCK}"
        first.mkdir()
        write_update(first, run_update(materials, base, method, adapters, BASE_BLOCK, checkpoint), materials)
        trained = run_update(materials, base, method, adapters, BASE_BLOCK + 1, checkpoint)
        return read_low_rank(trained.model), trained.update  # type: ignore[arg-type]


def _kept(update: Update) -> float:
    return next(float(epoch["valid_loss"]) for epoch in update.epochs if epoch["selected"])


def _groups(state: LowRank) -> list[Tensor]:
    return [matrix.flatten().double() for matrices in (state.a, state.b) for matrix in matrices.values()]


def _distance(ours: LowRank, theirs: LowRank) -> float:
    return float(torch.linalg.vector_norm(torch.cat(_groups(ours)) - torch.cat(_groups(theirs))))


def _rounding(after: LowRank, before: LowRank, dtype: torch.dtype) -> tuple[float, float]:
    exact, plain = 0.0, 0.0
    gradients: list[list[Tensor]] = [[], []]
    for now, then in zip(_groups(after), _groups(before), strict=True):
        wide = now.clone().requires_grad_(True)
        value = softmax_kl(wide[None], then[None]).sum()
        narrow = now.to(dtype).requires_grad_(True)
        ours, theirs = narrow.log_softmax(0), then.to(dtype).log_softmax(0)
        rounded = (ours.exp() * (ours - theirs)).sum()
        exact, plain = exact + float(value.detach()), plain + float(rounded.detach())
        for kept, one in zip(gradients, ((value, wide), (rounded, narrow)), strict=True):
            kept.append(torch.autograd.grad(*one)[0].double())
    cosine = torch.cosine_similarity(torch.cat(gradients[0]), torch.cat(gradients[1]), dim=0)
    return plain / exact, float(cosine)


def as_rows(measured: Sequence[Any]) -> list[dict[str, Any]]:
    """JSON-able rows of dataclasses."""
    return [dict(vars(one)) for one in measured]
