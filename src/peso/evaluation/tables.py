"""Scored targets as rows: what every run and rival writes, so that all are compared target by target."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from peso.data.dataset import Dataset, IntArray
from peso.evaluation.groups import user_groups

_TARGETS = {
    "protocol": pl.String,
    "model_block": pl.Int64,
    "block": pl.Int64,
    "user_id": pl.String,
    "item_id": pl.String,
    "event": pl.Int64,
    "is_ranked": pl.Boolean,
    "rank": pl.Int64,
    "log_likelihood": pl.Float64,
    "group": pl.String,
    "is_new_item": pl.Boolean,
}
_LISTS = {
    "model_block": pl.Int64,
    "user_id": pl.String,
    "position": pl.Int64,
    "item_id": pl.String,
    "score": pl.Float64,
}
"""Columns of both tables; a block without targets tells no types."""


def ranks_in_lists(lists: IntArray, truth: IntArray) -> IntArray:
    """The place of each target's item in its list.

    Args:
        lists: int64 [T, k], item numbers, best first; -1 where a list is short.
        truth: int64 [T], the item that was taken.

    Returns:
        int64 [T], 1 = first; 0 = not in the list.
    """
    is_match = lists == truth[:, None]
    if lists.shape[1] == 0:
        return np.zeros(len(truth), dtype=np.int64)
    return np.where(is_match.any(axis=1), is_match.argmax(axis=1) + 1, 0)


def target_rows(
    dataset: Dataset,
    events: IntArray,
    *,
    protocol: str,
    model_block: int,
    ranks: IntArray | None,
    log_likelihoods: NDArray[np.float64] | None,
    seen_items_mask: NDArray[np.bool_],
) -> pl.DataFrame:
    """Rows of `targets.parquet` for one model.

    Args:
        dataset: the events.
        events: int64 [T], event index of each target.
        protocol: "in_block" (the model has trained on the targets' block last), "next_block" or "any_block".
        model_block: the last block that the model has trained on.
        ranks: int64 [T], 0 = not in the list; None where no lists were made.
        log_likelihoods: float64 [T] in nats; None for a rival that has no likelihood.
        seen_items_mask: bool [N], items that the model can have met in training.

    Returns:
        Columns protocol, model_block, block, user_id, item_id, event, is_ranked, rank (null = not in the list),
        log_likelihood, group, is_new_item.
    """
    items, users = dataset.event_item[events], dataset.event_user[events]
    size = len(events)
    frame = pl.DataFrame(
        {
            "protocol": [protocol] * size,
            "model_block": np.full(size, model_block, dtype=np.int64),
            "block": dataset.event_block[events],
            "user_id": [dataset.user_ids[user] for user in users.tolist()],
            "item_id": [dataset.item_ids[item] for item in items.tolist()],
            "event": events.astype(np.int64),
            "is_ranked": np.full(size, ranks is not None),
            "rank": np.zeros(size, dtype=np.int64) if ranks is None else ranks,
            "log_likelihood": np.full(size, np.nan) if log_likelihoods is None else log_likelihoods,
            "group": user_groups(dataset, events),
            "is_new_item": ~seen_items_mask[items],
        },
        schema=_TARGETS,
    )
    return frame.with_columns(
        pl.when(pl.col("rank") > 0).then(pl.col("rank")).alias("rank"),
        pl.col("log_likelihood").fill_nan(None),
    )


def list_rows(
    dataset: Dataset, model_block: int, targets: IntArray, lists: IntArray, scores: NDArray[np.floating]
) -> pl.DataFrame:
    """Rows of `recommendations.parquet`.

    Args:
        dataset: the events.
        model_block: the last block that the model has trained on.
        targets: int64 [T], event index of each target; one per user.
        lists: int64 [T, k], item numbers, -1 where a list is short.
        scores: [T, k], log-probabilities in nats, or NaN for a rival that has none.

    Returns:
        Columns model_block, user_id, position (1 = first), item_id, score (null where NaN).
    """
    num_targets, k = lists.shape
    is_item = (lists >= 0).ravel()
    users = np.asarray(dataset.user_ids)[np.repeat(dataset.event_user[targets], k)[is_item]]
    return pl.DataFrame(
        {
            "model_block": np.full(int(is_item.sum()), model_block),
            "user_id": users.astype(str),
            "position": np.tile(np.arange(1, k + 1), num_targets)[is_item],
            "item_id": np.asarray(dataset.item_ids)[lists.ravel()[is_item]].astype(str),
            "score": scores.ravel()[is_item].astype(np.float64),
        },
        schema=_LISTS,
    ).with_columns(pl.col("score").fill_nan(None))
