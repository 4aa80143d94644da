"""Do updates of an adapter move as Proposition 1 says: far along what the data support, little along the rest?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from peso.config import DEFAULT_STRENGTHS, RunConfig
from peso.data.dataset import Dataset
from peso.data.examples import targets_of_block
from peso.errors import DataError
from peso.experiments.markdown import Cell
from peso.experiments.shares import ShareCurve, shares_picture
from peso.methods.theory import Shares, measured_shares
from peso.studies.adapter_directions import NUM_EXAMPLES, adapter_after, directions_after
from peso.studies.findings import Findings, Study, Table
from peso.studies.measures import spread, spread_text
from peso.studies.methods_compared import REFERENCE, anchored_by, method_arm
from peso.studies.plan import Arm, Plan
from peso.studies.running import Outcome
from peso.types import ProximalForm

TERM: ProximalForm = "normalised"
STRENGTHS = (0.001, 0.01, 0.1)
"""Of the term; each is Proposition 1's lambda."""
PULL = "peso, decoupled"
NUM_BINS = 8


def plan_directions(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA, the term whose strength is lambda, and the decoupled pull.

    Raises:
        DataError: block 1 has too few training targets to tell directions apart.
    """
    num_targets = len(targets_of_block(dataset, 1, "train")) if dataset.num_blocks > 1 else 0
    if num_targets < NUM_BINS:
        raise DataError(
            f"study directions finds directions in the gradients of block 1's training targets, and there are "
            f"{num_targets}; use a workspace with at least {NUM_BINS}."
        )
    arms = [method_arm(REFERENCE)]
    for strength in STRENGTHS:
        arm = method_arm("peso", proximal=anchored_by(TERM, strength))
        arms.append(Arm(f"peso, {TERM} {strength:g}", arm.overrides))
    pull = anchored_by("decoupled", DEFAULT_STRENGTHS["decoupled"])
    arms.append(Arm(PULL, method_arm("peso", proximal=pull).overrides))
    notes = [
        f"Directions: the generalised eigenvectors of the second moment of the gradients of {NUM_EXAMPLES} training "
        "targets of block 1 at v_0, in the softmax's metric times each matrix's size; A and B only. The share is the "
        "slope of the anchored move on single's, over the directions of a bin; bins hold equal numbers of them.",
        "Proposition 1 is about the minimum of a quadratic. These updates are a few passes of AdamW, single's end "
        "stands for the new optimum, and token rows move beside A and B: the order of the shares may be expected, "
        "their size may not.",
        "The pull has no lambda: it acts on what the optimizer does, not on the loss.",
    ]
    return Plan(arms, notes=notes)


def present(outcome: Outcome) -> Findings:
    """Shares along the directions, per arm and bin of directions, as means over seeds."""
    workspace, reference = outcome.workspaces[""], outcome.variants[REFERENCE]
    shares: dict[str, list[Shares]] = {arm.name: [] for arm in outcome.plan.arms if arm.name != REFERENCE}
    singles: list[Shares] = []
    for number, run in enumerate(reference.runs):
        anchor, optimum = adapter_after(workspace, run, 0), adapter_after(workspace, run, 1)
        pairs, metric = directions_after(workspace, run, 0)
        singles.append(measured_shares(pairs, metric, 0.0, optimum, anchor, optimum))
        for name, found in shares.items():
            end = adapter_after(workspace, outcome.variants[name].runs[number], 1)
            found.append(measured_shares(pairs, metric, _strength(outcome, name) or 0.0, optimum, anchor, end))
    rows: list[list[Cell]] = []
    curves = {}
    for name, found in shares.items():
        measured = [binned_shares(one) for one in found]
        is_predicted = _strength(outcome, name) is not None
        curves[name] = ShareCurve(
            _means([[float(part.median()) for part in _bins(one.values)] for one in found]),
            _means(measured),
            _means([[float(part.mean()) for part in _bins(one.predicted)] for one in found]) if is_predicted else None,
        )
        outside = [one.outside / single.outside for one, single in zip(found, singles, strict=True)]
        best, worst = ([one[place] for one in measured] for place in (0, -1))
        rows.append([name, *(spread_text(*spread(values)) for values in (best, worst, outside))])
    headings = ["", "share, largest eighth of rho", "share, smallest eighth", "length outside (rho = 0), of single's"]
    facts = {
        name: {"rho": curve.values, "measured": curve.measured, "predicted": curve.predicted}
        for name, curve in curves.items()
    }
    return Findings(
        [Table("How far the update of block 1 went along what its data support", headings, rows)],
        [],
        shares_picture(curves),
        "Share of single's move that each update made, by how much the block's data say about the direction.",
        {"shares": facts},
    )


def binned_shares(shares: Shares) -> list[float]:
    """The slope of moves on distances within each bin of directions, by falling rho.

    Args:
        shares: of one update.
    """
    bins = zip(_bins(shares.moved), _bins(shares.distance), strict=True)
    return [float((moved @ distance) / (distance @ distance)) for moved, distance in bins]


def _bins(values: Tensor) -> tuple[Tensor, ...]:
    return torch.tensor_split(values, NUM_BINS)


def _strength(outcome: Outcome, name: str) -> float | None:
    """Lambda of an arm; None for the pull, which has none."""
    proximal = next(arm for arm in outcome.plan.arms if arm.name == name).overrides["proximal"]
    return float(proximal["strength"]) if proximal["form"] == TERM else None


def _means(lines: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(column) for column in zip(*lines, strict=True)]


DIRECTIONS = Study(
    "directions", "Do updates move along what the data support, as Proposition 1 says?", plan_directions, present
)
