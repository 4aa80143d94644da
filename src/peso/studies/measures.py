"""What studies read off a run: the same numbers everywhere, per seed, with their mean and spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from peso.evaluation.summary import mean_over_blocks
from peso.experiments.markdown import cell_text
from peso.experiments.results import Variant
from peso.training.base import BASE_BLOCK


@dataclass(frozen=True)
class Measure:
    """A metric under a protocol.

    Attributes:
        protocol: "in_block" (each block's own test targets), "next_block" (all of the block after it) or "any_block"
            (test targets of other blocks).
        metric: one of `peso.evaluation.summary.METRICS`; more is better.
    """

    protocol: str
    metric: str

    @property
    def key(self) -> str:
        """Its key in a study's JSON."""
        return self.metric if self.protocol == "in_block" else f"{self.protocol}_{self.metric}"

    @property
    def label(self) -> str:
        """Its heading, with the unit."""
        if self.metric != "log_likelihood":
            name = self.metric.upper().replace("HIT", "Hit")
            return name if self.protocol == "in_block" else f"{name}, {_BLOCK[self.protocol]} block"
        return f"log-likelihood, {_BLOCK[self.protocol]} block (nats)"


_BLOCK = {"in_block": "this", "next_block": "next", "any_block": "any"}


NDCG = Measure("in_block", "ndcg@10")
THIS_BLOCK = Measure("in_block", "log_likelihood")
NEXT_BLOCK = Measure("next_block", "log_likelihood")
NEXT_NDCG = Measure("next_block", "ndcg@10")
BOTH_PROTOCOLS = (NDCG, NEXT_NDCG, THIS_BLOCK, NEXT_BLOCK)
RANKS = (Measure("in_block", "hit@5"), Measure("in_block", "hit@10"), Measure("in_block", "ndcg@5"), NDCG)

VALID_LOSS, DISTANCE, RATIO, SECONDS = "valid_loss", "distance", "anchor_ratio", "update_seconds"
"""Further numbers of a run, all over later blocks: the kept epochs' mean validation loss (nats); the mean distance that
A, B and token rows together travelled in an update; the mean of the anchor's part of a step over the loss's; the
seconds of all updates."""

Numbers = dict[str, float | None]


def run_numbers(result: dict[str, Any]) -> Numbers:
    """The numbers of one run, from the content of its `result.json`; None for what it does not have."""
    later = [epoch for epoch in result["training"] if epoch["block"] > BASE_BLOCK]
    ratios = [epoch["gradient_ratio"] for epoch in later if epoch["gradient_ratio"] is not None]
    squares: dict[int, float] = {}
    for entry in result["movement"]:
        squares[entry["block"]] = squares.get(entry["block"], 0.0) + entry["distance"] ** 2
    numbers: Numbers = {measure.key: result["mean"][measure.metric] for measure in (*RANKS, THIS_BLOCK)}
    return numbers | {
        **{measure.key: result["mean_next_block"][measure.metric] for measure in (NEXT_NDCG, NEXT_BLOCK)},
        VALID_LOSS: _mean([loss for epoch in later if epoch["selected"] and (loss := epoch["valid_loss"]) is not None]),
        DISTANCE: _mean([square**0.5 for square in squares.values()]),
        RATIO: _mean(ratios),
        SECONDS: sum(block["train_seconds"] for block in result["blocks"]),
    }


def group_numbers(result: dict[str, Any], group: str) -> Numbers:
    """The numbers of one user group, as a mean over the blocks in which it has targets."""
    own, following = ([entry["groups"][group] for entry in result[key]] for key in ("blocks", "next_block"))
    here, there = mean_over_blocks(own), mean_over_blocks(following)
    return {measure.key: here[measure.metric] for measure in (*RANKS, THIS_BLOCK)} | {
        measure.key: there[measure.metric] for measure in (NEXT_NDCG, NEXT_BLOCK)
    }


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean over seeds and standard deviation (over S - 1; None with one seed); None where a seed lacks the value."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None, None
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None


def spread_of(variant: Variant, key: str) -> tuple[float | None, float | None]:
    """`spread` of one number over a variant's runs."""
    return spread([run_numbers(run.result)[key] for run in variant.runs])


def spread_text(mean: float | None, deviation: float | None) -> str:
    """Such as "0.0252 ± 0.0007"; "-" where there is no mean."""
    if mean is None:
        return cell_text(mean)
    digits = 4 if abs(mean) < 1 else 3
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
