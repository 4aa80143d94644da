"""A finished run's newest model, loaded once, and what it recommends to any users of its workspace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peso.config import make_config
from peso.data.dataset import Dataset, IntArray
from peso.data.item_choice import EVERYTHING, ItemChoice
from peso.data.storage import Kind, read_facts
from peso.decoding.recommend import Recommender
from peso.decoding.reserved import Reserved, recommend_with_new
from peso.decoding.trie import Trie, build_trie
from peso.lm.sequences import SequenceBuilder
from peso.memory.neighbours import count_neighbours
from peso.memory.weights import MemoryWeights, weights_of_record
from peso.semantic_ids.added_items import AddedItems, catalogue_fingerprint, load_added_items
from peso.training.base import load_state, read_base
from peso.training.finished import RESULT, finished_run
from peso.training.grown import growth_of, load_grown
from peso.training.materials import Materials, Reader, load_materials
from peso.training.measure import memory_after, reserved_for_new
from peso.training.memory import Counter, NeighbourMemory, build_memory

_WEIGHTS: dict[str, Kind] = {
    "lag_weights": [float], "distance_weights": [float], "backward": float, "content_weight": float,
    "strengths": [float],
}  # fmt: skip
_MEASURED: dict[str, Kind] = {"blocks": [{"memory?": _WEIGHTS}]}
"""What lists need of a run's result."""


@dataclass(frozen=True, eq=False)
class UserLists:
    """Lists of the next items after everything the workspace knows of a user, added items included.

    Attributes:
        run_id: the run.
        block: the last block that the model has trained on.
        dataset: the events.
        num_items: list length k.
        excludes_history: whether a list leaves out what its user already took.
        max_history: longest history in items.
        added: items that stand behind the catalogue.
        catalogue: fingerprint of all items with their codes.
        builder: writes histories as tokens.
        recommender: decodes.
        trie: the items that may be named.
        memory: counts of all events; None for the model alone.
        reserved: what lists keep for new items; None for nothing.
    """

    run_id: str
    block: int
    dataset: Dataset
    num_items: int
    excludes_history: bool
    max_history: int
    added: AddedItems
    catalogue: str
    builder: SequenceBuilder
    recommender: Recommender
    trie: Trie
    memory: NeighbourMemory | None
    reserved: Reserved | None

    def history(self, user: int) -> IntArray:
        """Everything a user took, oldest first, int64 [H]."""
        start, end = self.dataset.user_offsets[user : user + 2]
        return self.dataset.event_item[start:end]

    def recommend(self, users: IntArray) -> tuple[IntArray, NDArray[np.float32]]:
        """Lists of some users; equal users in equal order give equal bits.

        Args:
            users: int64 [B].

        Returns:
            Items, int64 [B, k], best first, numbers from the catalogue's size on for added ones, -1 where a list is
            short; and their log-probabilities in nats, float32 [B, k], -inf there.
        """
        return self.recommend_after([self.history(user) for user in users.tolist()])

    def recommend_after(self, histories: Sequence[IntArray]) -> tuple[IntArray, NDArray[np.float32]]:
        """Lists for the moment after each history, int64 [H], oldest first, otherwise as `recommend`."""
        prompts = [self.builder.prompt(history[-self.max_history :]) for history in histories]
        excluded = histories if self.excludes_history else None
        remembered = None if self.memory is None else self.memory.recall(histories)
        if self.reserved is None:
            return self.recommender.recommend(prompts, self.trie, excluded, remembered)
        return recommend_with_new(self.recommender, prompts, self.trie, self.reserved, excluded, remembered)

    def item_id(self, item: int) -> str:
        """The external id of an item of a list."""
        known = self.dataset.num_items
        return self.added.ids[item - known] if item >= known else self.dataset.item_ids[item]

    def title(self, item: int) -> str:
        """The title of an item of a list; empty where unknown."""
        known = self.dataset.num_items
        return self.added.titles[item - known] if item >= known else self.dataset.titles[item]


def load_user_lists(
    workspace: Path,
    num_items: int,
    run_id: str | None = None,
    decoding: Mapping[str, Any] | None = None,
    count: Counter = count_neighbours,
    choice: ItemChoice = EVERYTHING,
) -> UserLists:
    """Loads model, catalogue and memory.

    Args:
        workspace: a folder with at least one finished run.
        num_items: list length k.
        run_id: which run; the one finished last by default.
        decoding: options of `decoding` that differ from the run's.
        count: `LiveNeighbours` for a memory that goes on counting.
        choice: what may be named of what the run may name.

    Raises:
        WorkspaceError: there is no finished run, or not this one.
        ConfigError: the options are wrong.
        DataError: the choice leaves nothing to name.
    """
    folder = finished_run(workspace, run_id)
    materials = load_materials(workspace, make_config(folder / "config.toml", {"decoding": dict(decoding or {})}))
    dataset, config = materials.dataset, materials.config
    last_block = dataset.num_blocks - 1
    base = read_base(materials, workspace / "bases")
    version = folder / "adapters" / f"block_{last_block}"
    # Items added since the data were imported stand behind the catalogue; nobody can have taken them yet.
    added = load_added_items(workspace, materials.semantic_ids)
    if added.codebook is None:
        _, reader = load_state(materials, base, version)
    else:
        growth = growth_of(added.codebook, materials.semantic_ids.level_sizes)
        _, reader = load_grown(materials, base, version, growth)
    options = config.decoding.model_copy(
        update={"num_recommendations": num_items, "beam_width": max(num_items, config.decoding.beam_width)}
    )
    codes = np.concatenate([materials.semantic_ids.codes, added.codes])
    allowed = materials.list_rules.allowed(dataset, last_block)
    reserved = reserved_for_new(materials, allowed, last_block, added)
    nameable = np.concatenate([allowed, dataset.num_items + np.arange(len(added.ids))])
    if not choice.is_everything:
        nameable = choice.among(nameable, [*dataset.item_ids, *added.ids])
        reserved = None if reserved is None else reserved.among(nameable)
    memory = None
    if config.memory.use:
        blocks = read_facts(folder / RESULT, "run result", _MEASURED, "restore it, or run again in a new workspace")[
            "blocks"
        ]
        memory = _memory_of_all_events(materials, reader, blocks[-1] if blocks else {}, added, codes, count)
    return UserLists(
        run_id=folder.name,
        block=last_block,
        dataset=dataset,
        num_items=num_items,
        excludes_history=materials.list_rules.excludes_history,
        max_history=config.max_history,
        added=added,
        catalogue=catalogue_fingerprint(
            dataset.fingerprint, materials.semantic_ids.fingerprint, added.fingerprint if len(added.ids) else None
        ),
        builder=reader.builder,
        recommender=Recommender(reader.model, reader.builder.vocabulary, options),
        trie=build_trie(codes, nameable),
        memory=memory,
        reserved=reserved,
    )


def _memory_of_all_events(
    materials: Materials, reader: Reader, measured: dict[str, Any], added: AddedItems, codes: IntArray, count: Counter
) -> NeighbourMemory:
    """Counts of all events, in the way that the run chose after its last block."""
    dataset, config = materials.dataset, materials.config.memory
    if "memory" in measured:
        weights: MemoryWeights | None = weights_of_record(measured["memory"])
    else:
        chosen = memory_after(materials, reader, dataset.num_blocks - 1)
        weights = None if chosen is None else chosen.weights
    similar = materials.similar_items_with(added)
    return build_memory(dataset, np.arange(dataset.num_events), codes, config, similar, weights, count)
