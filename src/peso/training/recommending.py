"""Recommendations for one user from a finished run: its newest adapter, the user's whole history."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from peso.config import make_config
from peso.decoding.recommend import Recommender
from peso.decoding.trie import build_trie
from peso.errors import WorkspaceError
from peso.semantic_ids.added_items import load_added_items
from peso.training.base import load_state, read_base
from peso.training.materials import load_materials
from peso.training.measure import memory_after
from peso.training.memory import build_memory
from peso.training.outcome import RESULT


def recommend_for_user(workspace: Path, user_id: str, num_items: int, run_id: str | None = None) -> dict[str, Any]:
    """The best next items for a user after everything the workspace knows of them, added items included.

    Args:
        workspace: a folder with at least one finished run.
        user_id: as in the data.
        num_items: list length k.
        run_id: which run; the one finished last by default.

    Returns:
        `run_id`, `block` (of the adapter), `user_id`, `history` and `recommendations`: lists of `item_id`, `title`
        and, for recommendations, `score` (log-probability in nats).

    Raises:
        DataError: the user is unknown.
        WorkspaceError: there is no finished run, or not this one.
    """
    folder = finished_run(workspace, run_id)
    materials = load_materials(workspace, make_config(folder / "config.toml"))
    dataset, config = materials.dataset, materials.config
    user = dataset.user_number(user_id)
    last_block = dataset.num_blocks - 1
    base = read_base(materials, workspace / "bases")
    _, reader = load_state(materials, base, folder / "adapters" / f"block_{last_block}")

    history = dataset.event_item[dataset.user_offsets[user] : dataset.user_offsets[user + 1]]
    decoding = config.decoding.model_copy(
        update={"num_recommendations": num_items, "beam_width": max(num_items, config.decoding.beam_width)}
    )
    # Items added since the data were imported stand behind the catalogue; nobody can have taken them yet.
    added = load_added_items(workspace, materials.semantic_ids)
    allowed = materials.list_rules.allowed(dataset, last_block)
    added_numbers = dataset.num_items + np.arange(len(added.ids))
    codes = np.concatenate([materials.semantic_ids.codes, added.codes])
    trie = build_trie(codes, np.concatenate([allowed, added_numbers]))
    recommender = Recommender(reader.model, reader.builder.vocabulary, decoding)
    prompt = reader.builder.prompt(history[-config.max_history :])
    excluded = [history] if materials.list_rules.excludes_history else None
    memory = None
    if config.memory.use:
        chosen = memory_after(materials, reader, last_block)
        everything = np.arange(dataset.num_events)
        similar = materials.similar_items_with(added)
        counted = build_memory(dataset, everything, codes, config.memory, similar)
        memory = replace(counted, strengths=chosen.strengths, content_weight=chosen.content_weight).recall([history])
    items, scores = recommender.recommend([prompt], trie, excluded, memory)

    def named(item: int) -> dict[str, Any]:
        if item >= dataset.num_items:
            return {"item_id": added.ids[item - dataset.num_items], "title": added.titles[item - dataset.num_items]}
        return {"item_id": dataset.item_ids[item], "title": dataset.titles[item]}

    return {
        "run_id": folder.name,
        "block": last_block,
        "user_id": user_id,
        "history": [named(item) for item in history.tolist()],
        "recommendations": [
            named(item) | {"score": float(score)}
            for item, score in zip(items[0].tolist(), scores[0], strict=True)
            if item >= 0 and np.isfinite(score)
        ],
    }


def finished_run(workspace: Path, run_id: str | None) -> Path:
    """The folder of a finished run: a given one, or the one finished last.

    Raises:
        WorkspaceError: there is none, or not this one.
    """
    finished = sorted((workspace / "runs").glob(f"*/{RESULT}"), key=lambda path: path.stat().st_mtime)
    names = [path.parent.name for path in finished]
    if not names:
        raise WorkspaceError(f"workspace {workspace} holds no finished run; use `peso run` first.")
    if run_id is None:
        return finished[-1].parent
    if run_id not in names:
        raise WorkspaceError(f"run {run_id!r} is not a finished run of {workspace}; there are: {', '.join(names)}.")
    return workspace / "runs" / run_id
