"""From scored targets to the numbers of a result: means per block, per group, and over blocks."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from peso.errors import DataError
from peso.evaluation.groups import USER_GROUPS
from peso.evaluation.hit import hit
from peso.evaluation.ndcg import ndcg
from peso.evaluation.reciprocal_rank import reciprocal_rank

RANK_METRICS: Mapping[str, Callable[[NDArray[np.int64]], NDArray[np.float64]]] = {
    "hit@1": partial(hit, k=1),
    "hit@5": partial(hit, k=5),
    "hit@10": partial(hit, k=10),
    "ndcg@5": partial(ndcg, k=5),
    "ndcg@10": partial(ndcg, k=10),
    "mrr@10": partial(reciprocal_rank, k=10),
}
"""Metrics of the place of the true item in the recommended list, in [0, 1]."""

METRICS: tuple[str, ...] = (*RANK_METRICS, "log_likelihood")
"""Every metric of a result; more is better for all of them. `log_likelihood` is in nats."""


def metric_values(targets: pl.DataFrame, metric: str) -> NDArray[np.float64] | None:
    """One metric, target by target.

    Args:
        targets: scored targets; needs the columns `is_ranked` and `rank` (null = not in the list), or `log_likelihood`.
        metric: one of `METRICS`.

    Returns:
        float64 [T]; None if a target has no log-likelihood, or no list was made for it.

    Raises:
        DataError: the metric is unknown.
    """
    if metric == "log_likelihood":
        column = targets["log_likelihood"]
        return None if column.null_count() else column.cast(pl.Float64).to_numpy()
    if metric not in RANK_METRICS:
        raise DataError(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}.")
    if not targets["is_ranked"].all():
        return None
    return RANK_METRICS[metric](targets["rank"].cast(pl.Int64).fill_null(0).to_numpy())


def summarise(targets: pl.DataFrame) -> dict[str, Any]:
    """The mean of every metric over the targets of one model and block, and the same for each group.

    Args:
        targets: rows of `targets.parquet` with one protocol and one model_block.

    Returns:
        `num_targets`, every metric of `METRICS`, and `groups`: {name: {`num_targets`, metrics}} for the user groups
        "new", "dormant", "returning" and the item groups "known_item", "new_item". A mean over no targets is None, and
        so is a metric that any target lacks.

    Raises:
        DataError: the rows mix protocols or models.
    """
    if targets.select("protocol", "model_block").n_unique() > 1:
        raise DataError("the targets to summarise mix protocols or model blocks; filter to one of each.")
    masks = {name: pl.col("group") == name for name in USER_GROUPS}
    masks |= {"known_item": ~pl.col("is_new_item"), "new_item": pl.col("is_new_item")}
    return {**_means(targets), "groups": {name: _means(targets.filter(mask)) for name, mask in masks.items()}}


def mean_over_blocks(summaries: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The mean of every metric over blocks; each block weighs the same, however many targets it has.

    Args:
        summaries: one summary per block.

    Returns:
        {metric: mean}. Blocks whose value is None are left out; None if no block has one.
    """
    return {metric: _mean([s[metric] for s in summaries if s[metric] is not None]) for metric in METRICS}


def _means(targets: pl.DataFrame) -> dict[str, int | float | None]:
    result: dict[str, int | float | None] = {"num_targets": len(targets)}
    for metric in METRICS:
        values = metric_values(targets, metric)
        result[metric] = None if values is None else _mean(values)
    return result


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float | None:
    return float(np.mean(values)) if len(values) else None
