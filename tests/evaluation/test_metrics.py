"""Metrics by hand, and how rows become a summary."""

import numpy as np
import polars as pl
import pytest

from peso.data.examples import all_events_of_block, items_seen_in_training
from peso.evaluation.groups import user_groups
from peso.evaluation.hit import hit
from peso.evaluation.ndcg import ndcg
from peso.evaluation.reciprocal_rank import reciprocal_rank
from peso.evaluation.summary import mean_over_blocks, summarise
from peso.evaluation.tables import ranks_in_lists, target_rows
from worlds import tiny_dataset

RANKS = np.array([1, 3, 0, 10, 11])


def test_metrics_by_hand() -> None:
    assert hit(RANKS, 10).tolist() == [1, 1, 0, 1, 0]
    np.testing.assert_allclose(ndcg(RANKS, 5), [1, 0.5, 0, 0, 0])
    np.testing.assert_allclose(ndcg(RANKS, 10)[3], 1 / np.log2(11))
    np.testing.assert_allclose(reciprocal_rank(RANKS, 10), [1, 1 / 3, 0, 0.1, 0])


def test_ranks_in_lists() -> None:
    lists = np.array([[4, 2, 9], [1, -1, -1], [7, 8, 9]])
    assert ranks_in_lists(lists, np.array([9, 2, 7])).tolist() == [3, 0, 1]
    assert ranks_in_lists(np.empty((2, 0), dtype=np.int64), np.array([1, 2])).tolist() == [0, 0]


def rows(ranks: np.ndarray | None) -> pl.DataFrame:
    dataset = tiny_dataset()
    events = all_events_of_block(dataset, 1)
    return target_rows(
        dataset,
        events,
        protocol="next_block",
        model_block=0,
        ranks=None if ranks is None else np.resize(ranks, len(events)),
        log_likelihoods=np.full(len(events), -2.0),
        seen_items_mask=items_seen_in_training(dataset, 0),
    )


def test_summary_adds_up() -> None:
    frame = rows(np.array([1, 0, 2]))
    summary = summarise(frame)
    assert summary["num_targets"] == len(frame)
    assert summary["hit@1"] == pytest.approx((frame["rank"] == 1).fill_null(False).mean())
    assert summary["log_likelihood"] == -2.0
    groups = summary["groups"]
    assert sum(groups[name]["num_targets"] for name in ("new", "dormant", "returning")) == len(frame)
    assert groups["known_item"]["num_targets"] + groups["new_item"]["num_targets"] == len(frame)
    assert mean_over_blocks([summary, summary | {"hit@1": 0.0}])["hit@1"] == pytest.approx(summary["hit@1"] / 2)


def test_what_was_not_ranked_has_no_rank_metric() -> None:
    summary = summarise(rows(None))
    assert summary["ndcg@10"] is None
    assert summary["log_likelihood"] == -2.0


def test_user_groups() -> None:
    dataset = tiny_dataset(40, 200, 4)
    for block in range(1, 4):
        events = all_events_of_block(dataset, block)
        for event, group in zip(events, user_groups(dataset, events), strict=True):
            user = dataset.event_user[event]
            blocks = set(dataset.event_block[dataset.event_user == user].tolist())
            expected = "returning" if block - 1 in blocks else "dormant" if min(blocks) < block else "new"
            assert group == expected
