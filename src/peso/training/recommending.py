"""Recommendations for one user from a finished run: its newest adapter, the user's whole history, up to this moment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peso.data.dataset import IntArray
from peso.data.item_choice import EVERYTHING, ItemChoice
from peso.data.new_events import read_new_events
from peso.memory.live import LiveNeighbours
from peso.memory.neighbours import count_neighbours
from peso.training.user_lists import UserLists, load_user_lists


def recommend_for_user(
    workspace: Path,
    user_id: str,
    num_items: int,
    run_id: str | None = None,
    decoding: Mapping[str, Any] | None = None,
    since: Path | None = None,
    choice: ItemChoice = EVERYTHING,
) -> dict[str, Any]:
    """The best next items for a user after everything the workspace knows of them, added items included.

    Args:
        workspace: a folder with at least one finished run.
        user_id: as in the data.
        num_items: list length k.
        run_id: which run; the one finished last by default.
        decoding: options of `decoding` that differ from the run's.
        since: table of what happened since the import (see `peso.data.new_events`), by this user and by others: it
            lengthens histories, and the memory has counted it before the list is made. Nothing is trained or stored.
        choice: what may be named of what the run may name.

    Returns:
        `run_id`, `block` (of the adapter), `user_id`, `history` and `recommendations`: lists of `item_id`, `title`
        and, for recommendations, `score` (log-probability in nats).

    Raises:
        DataError: the user is unknown, the table is not usable, or the choice leaves nothing to name.
        WorkspaceError: there is no finished run, or not this one.
        ConfigError: the options are wrong.
    """
    count = LiveNeighbours if since else count_neighbours
    lists = load_user_lists(workspace, num_items, run_id, decoding, count, choice)
    histories = {} if since is None else _observe(lists, since)
    history = histories[user_id] if user_id in histories else lists.history(lists.dataset.user_number(user_id))
    items, scores = lists.recommend_after([history])

    def named(item: int) -> dict[str, Any]:
        return {"item_id": lists.item_id(item), "title": lists.title(item)}

    return {
        "run_id": lists.run_id,
        "block": lists.block,
        "user_id": user_id,
        "history": [named(item) for item in history.tolist()],
        "recommendations": [
            named(item) | {"score": float(score)}
            for item, score in zip(items[0].tolist(), scores[0], strict=True)
            if item >= 0 and np.isfinite(score)
        ],
    }


def _observe(lists: UserLists, since: Path) -> dict[str, IntArray]:
    """Counts new events, and gives the history of everyone who has some."""
    numbers = {user: number for number, user in enumerate(lists.dataset.user_ids)}
    histories: dict[str, IntArray] = {}
    for user, item in read_new_events(since, lists.dataset):
        known = lists.history(numbers[user]) if user in numbers else np.empty(0, dtype=np.int64)
        history = histories.get(user, known)
        if lists.memory is not None:
            lists.memory.observe(history, item)
        histories[user] = np.append(history, item)
    return histories
