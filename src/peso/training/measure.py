"""What the model after a block does with targets: ranks in decoded lists, and log-likelihoods."""

import time
from dataclasses import dataclass

import numpy as np
import polars as pl

from peso.config.instants import microseconds
from peso.data.dataset import IntArray
from peso.data.examples import (
    all_events_of_block,
    history_starts,
    items_seen_in_training,
    items_taken_before,
    known_events,
    targets_of_block,
)
from peso.decoding.recommend import Recommender
from peso.decoding.reserved import Reserved, recommend_with_new
from peso.decoding.trie import Trie, build_trie
from peso.evaluation.tables import list_rows, ranks_in_lists, target_rows
from peso.lm.rows import one_target_per_row
from peso.lm.sharding import answering_others
from peso.memory.choice import targets_to_choose_by
from peso.memory.weights import MemoryWeights
from peso.semantic_ids.added_items import AddedItems
from peso.training.code_losses import code_losses
from peso.training.materials import Materials, Reader
from peso.training.memory import NeighbourMemory, build_memory, is_open, weights_for
from peso.training.processes import gather_shares, own_share


@dataclass(frozen=True, eq=False)
class Measurement:
    """Results of one model on one set of targets.

    Attributes:
        protocol: which one; see `target_rows`.
        targets: rows of `targets.parquet`; none where no user has three events in the block.
        recommendations: rows of `recommendations.parquet`; None where they are not kept.
        num_invalid: listed items outside the catalogue (0 unless decoding is broken).
        num_duplicates: items listed twice for one user (0 unless decoding is broken).
        seconds: time for all of it.
        memory: how the memory counted; None without one.
    """

    protocol: str
    targets: pl.DataFrame
    recommendations: pl.DataFrame | None
    num_invalid: int
    num_duplicates: int
    seconds: float
    memory: MemoryWeights | None


def measure_in_block(materials: Materials, reader: Reader, memory: NeighbourMemory | None, block: int) -> Measurement:
    """The paper's protocol: the block's test targets, one per user, with the model after that block.

    Args:
        materials: data and configuration.
        reader: the model.
        memory: what is beside it; see `memory_after`.
        block: which.
    """
    targets = targets_of_block(materials.dataset, block, "test")
    return _measure(materials, reader, memory, "in_block", block, block, targets)


def measure_next_block(
    materials: Materials, reader: Reader, memory: NeighbourMemory | None, model_block: int
) -> Measurement:
    """The protocol of a deployment: every interaction of the next block, with the model after this one."""
    targets = all_events_of_block(materials.dataset, model_block + 1)
    return _measure(materials, reader, memory, "next_block", model_block, model_block + 1, targets)


def measure_any_block(
    materials: Materials, reader: Reader, memory: NeighbourMemory | None, model_block: int, block: int
) -> Measurement:
    """The test targets of any block, with the model after any other: what is forgotten and what is carried over.

    A later model has met an earlier block's test items in its histories, and never as what it had to answer.
    """
    targets = targets_of_block(materials.dataset, block, "test")
    return _measure(materials, reader, memory, "any_block", model_block, block, targets)


def _measure(
    materials: Materials,
    reader: Reader,
    memory: NeighbourMemory | None,
    protocol: str,
    model_block: int,
    block: int,
    targets: IntArray,
) -> Measurement:
    started = time.perf_counter()
    dataset, config = materials.dataset, materials.config
    rows = one_target_per_row(dataset, targets, config.max_history)
    by_code = -code_losses(reader.model, reader.likelihood, reader.builder, rows)
    if memory is None:
        log_likelihoods = by_code.sum(1)
    else:
        histories = items_taken_before(dataset, targets)
        log_likelihoods = memory.log_likelihoods(histories, dataset.event_item[targets], by_code)
    is_listed = protocol != "next_block" or config.evaluation.next_block == "ranks"
    lists = np.empty((len(targets), 0), dtype=np.int64)
    num_invalid = num_duplicates = 0
    recommendations = None
    if is_listed:
        allowed = materials.list_rules.allowed(dataset, block)
        trie = build_trie(materials.semantic_ids.codes, allowed)
        reserved = reserved_for_new(materials, allowed, model_block)
        lists, scores = recommend_for(materials, reader, targets, trie, memory, reserved)
        num_invalid, num_duplicates = count_defects(lists, allowed)
        if protocol == "in_block":
            recommendations = list_rows(dataset, model_block, targets, lists, scores)
    frame = target_rows(
        dataset,
        targets,
        protocol=protocol,
        model_block=model_block,
        ranks=ranks_in_lists(lists, dataset.event_item[targets]) if is_listed else None,
        log_likelihoods=log_likelihoods,
        seen_items_mask=items_seen_in_training(dataset, model_block),
    )
    seconds = time.perf_counter() - started
    weights = None if memory is None else memory.weights
    return Measurement(protocol, frame, recommendations, num_invalid, num_duplicates, seconds, weights)


def memory_after(materials: Materials, reader: Reader, block: int) -> NeighbourMemory | None:
    """The memory beside the model after a block; what is open about it comes from the block's validation targets.

    Returns:
        None where the configuration has no use for one.
    """
    dataset, config, codes = materials.dataset, materials.config, materials.semantic_ids.codes
    if not config.memory.use:
        return None
    events, similar, weights = known_events(dataset, block), materials.similar_items, None
    if is_open(config.memory, similar is not None):
        targets = targets_to_choose_by(dataset, block)
        rows = one_target_per_row(dataset, targets, config.max_history)
        by_code = -code_losses(reader.model, reader.likelihood, reader.builder, rows)
        histories, items = items_taken_before(dataset, targets), dataset.event_item[targets]
        weights = weights_for(dataset, events, codes, config.memory, histories, items, by_code, similar)
    return build_memory(dataset, events, codes, config.memory, similar, weights)


def recommend_for(
    materials: Materials,
    reader: Reader,
    targets: IntArray,
    trie: Trie,
    memory: NeighbourMemory | None = None,
    reserved: Reserved | None = None,
) -> tuple[IntArray, np.ndarray]:
    """Lists for the moment just before each target event, of the model alone or with a memory.

    Args:
        materials: data and configuration.
        reader: backbone and vocabulary.
        targets: event indices.
        trie: the items that may be named.
        memory: None for the model alone.
        reserved: what is kept for new items; None for nothing.

    Returns:
        Items, int64 [T, k], -1 where a list is short; and their log-probabilities, float32 [T, k].
    """
    dataset, config = materials.dataset, materials.config
    all_targets, targets = targets, own_share(targets)
    starts = history_starts(dataset, targets, config.max_history)
    histories = [dataset.event_item[start:target] for start, target in zip(starts, targets, strict=True)]
    excluded = materials.list_rules.excluded(dataset, targets)
    recommender = Recommender(reader.model, reader.builder.vocabulary, config.decoding)
    prompts = [reader.builder.prompt(history) for history in histories]
    remembered = None if memory is None else memory.recall(items_taken_before(dataset, targets))
    with answering_others(reader.model):
        if reserved is None:
            found = recommender.recommend(prompts, trie, excluded, remembered)
        else:
            found = recommend_with_new(recommender, prompts, trie, reserved, excluded, remembered)
    items, scores = gather_shares(len(all_targets), *found)
    return items, scores


def reserved_for_new(
    materials: Materials, allowed: IntArray, model_block: int, added: AddedItems | None = None
) -> Reserved | None:
    """What lists keep for new items; None where nothing is kept.

    New are items first taken at `decoding.new_since` or later, and those that nobody has taken by the model's latest
    block; without such a date, those that no event before that block names.

    Args:
        materials: data and configuration.
        allowed: items that may be named.
        model_block: the latest block; at 0, where all items are of one block, only added ones are new without a date.
        added: items that stand behind the catalogue; None for none.
    """
    share, codes = materials.config.decoding.new_item_share, materials.semantic_ids.codes
    if not share:
        return None
    since = materials.config.decoding.new_since
    if since is not None:
        is_new = materials.item_times[allowed] >= microseconds(since)
        is_not_taken_yet = materials.dataset.item_first_block[allowed] > model_block  # their times are yet to come
        new = allowed[is_new | is_not_taken_yet]
    else:
        first_new = model_block if model_block else materials.dataset.num_blocks + 1
        new = allowed[materials.dataset.item_first_block[allowed] >= first_new]
    if added is not None and len(added.ids):
        codes = np.concatenate([codes, added.codes])
        new = np.concatenate([new, len(codes) - len(added.ids) + np.arange(len(added.ids))])
    return Reserved(build_trie(codes, new), share) if len(new) else None


def count_defects(lists: IntArray, allowed: IntArray) -> tuple[int, int]:
    """Counts listed items outside the catalogue, and items listed twice for one user.

    Args:
        lists: int64 [T, k], -1 where a list is short.
        allowed: the catalogue.
    """
    is_item = lists >= 0
    num_invalid = int((is_item & ~np.isin(lists, allowed)).sum()) + int((lists < -1).sum())
    ordered = np.sort(lists, axis=1)
    return num_invalid, int(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum())
