"""Recommendations for one user from a finished run: its newest adapter, the user's whole history."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peso.training.user_lists import load_user_lists


def recommend_for_user(
    workspace: Path,
    user_id: str,
    num_items: int,
    run_id: str | None = None,
    decoding: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The best next items for a user after everything the workspace knows of them, added items included.

    Args:
        workspace: a folder with at least one finished run.
        user_id: as in the data.
        num_items: list length k.
        run_id: which run; the one finished last by default.
        decoding: options of `decoding` that differ from the run's.

    Returns:
        `run_id`, `block` (of the adapter), `user_id`, `history` and `recommendations`: lists of `item_id`, `title`
        and, for recommendations, `score` (log-probability in nats).

    Raises:
        DataError: the user is unknown.
        WorkspaceError: there is no finished run, or not this one.
        ConfigError: the options are wrong.
    """
    lists = load_user_lists(workspace, num_items, run_id, decoding)
    user = lists.dataset.user_number(user_id)
    items, scores = lists.recommend(np.array([user]))

    def named(item: int) -> dict[str, Any]:
        return {"item_id": lists.item_id(item), "title": lists.title(item)}

    return {
        "run_id": lists.run_id,
        "block": lists.block,
        "user_id": user_id,
        "history": [named(item) for item in lists.history(user).tolist()],
        "recommendations": [
            named(item) | {"score": float(score)}
            for item, score in zip(items[0].tolist(), scores[0], strict=True)
            if item >= 0 and np.isfinite(score)
        ],
    }
