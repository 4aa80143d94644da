"""Likelihoods of model and memory together, and the strengths that validation targets choose."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from peso.config import MemoryConfig, dump_config, make_config
from peso.data.dataset import Dataset, IntArray
from peso.data.examples import items_taken_before, known_events, targets_of_block
from peso.memory.choice import CONTENT_WEIGHTS, STRENGTHS, chosen_counting
from peso.memory.neighbours import FloatArray, Neighbours
from peso.memory.weights import FIRST_CONTENT_WEIGHT, FIRST_STRENGTH
from peso.training.memory import NeighbourMemory, build_memory, weights_for
from worlds import tiny_codes, tiny_dataset


@pytest.mark.parametrize("has_repeats", [False, True])
def test_likelihoods_are_the_formula(has_repeats: bool) -> None:
    """Counts of prefixes and the mixture, written out as a loop over levels; own items count where they come again."""
    dataset, codes = tiny_dataset(), tiny_codes()
    config = MemoryConfig(lag_weights=(1.0,), distance_weights=(1.0,), backward=0.0, strength=4.0)
    memory = build_memory(dataset, known_events(dataset, 1), codes, config)
    assert not memory.has_repeats
    memory = replace(memory, has_repeats=has_repeats)
    targets = targets_of_block(dataset, 1, "test")
    histories, items = items_taken_before(dataset, targets), dataset.event_item[targets]
    by_model = np.log(np.random.default_rng(0).uniform(0.05, 0.9, (len(targets), 3)))
    found = memory.log_likelihoods(histories, items, by_model)
    for row, (history, item) in enumerate(zip(histories, items, strict=True)):
        near, weights = memory.neighbours.near(history, (1.0,))
        expected, behind = 0.0, np.array([has_repeats or one not in history for one in near], dtype=bool)
        for level in range(3):
            before = weights[behind].sum()
            behind = behind & (codes[near, level] == codes[item, level])
            strength = 4.0 * np.exp(by_model[row, :level].sum()) ** config.prefix_power
            expected += np.log((weights[behind].sum() + strength * np.exp(by_model[row, level])) / (before + strength))
        assert found[row] == pytest.approx(expected)


def fitted(
    dataset: Dataset,
    events: IntArray,
    config: MemoryConfig,
    histories: Sequence[IntArray],
    items: IntArray,
    by_model: FloatArray,
    similar: Neighbours | None = None,
) -> NeighbourMemory:
    codes = tiny_codes()
    weights = weights_for(dataset, events, codes, config, histories, items, by_model, similar)
    return build_memory(dataset, events, codes, config, similar, weights)


def test_the_chosen_strengths_are_the_best_of_each_level() -> None:
    dataset = tiny_dataset(num_users=40)
    targets = targets_of_block(dataset, 1, "valid")
    histories, items = items_taken_before(dataset, targets), dataset.event_item[targets]
    by_model = np.log(np.random.default_rng(1).uniform(0.05, 0.9, (len(targets), 3)))
    chosen = fitted(dataset, known_events(dataset, 1), MemoryConfig(), histories, items, by_model)
    best = chosen.log_likelihoods(histories, items, by_model).mean()
    for level in range(3):
        for other in STRENGTHS[::4]:
            strengths = list(chosen.weights.strengths)
            strengths[level] = float(other)
            rival = replace(chosen, weights=replace(chosen.weights, strengths=tuple(strengths)))
            assert rival.log_likelihoods(histories, items, by_model).mean() <= best + 1e-12


def test_every_model_of_a_block_has_the_same_counts_beside_it() -> None:
    """Strengths follow the model; how pairs count is what counts alone say."""
    dataset = tiny_dataset(num_users=40)
    events, targets = known_events(dataset, 1), targets_of_block(dataset, 1, "valid")
    histories, items = items_taken_before(dataset, targets), dataset.event_item[targets]
    counting = chosen_counting(dataset, events, histories, items, MemoryConfig())
    chosen = [
        fitted(dataset, events, MemoryConfig(), histories, items, np.log(np.full((len(targets), 3), probability)))
        for probability in (0.02, 0.9)
    ]
    for memory in chosen:
        assert memory.weights.lag_weights == counting.lag_weights
        assert memory.weights.distance_weights == counting.distance_weights
        assert memory.weights.backward == counting.backward
    assert chosen[0].weights.strengths != chosen[1].weights.strengths


def test_a_model_that_knows_better_is_trusted() -> None:
    dataset = tiny_dataset()
    events, targets = known_events(dataset, 1), targets_of_block(dataset, 1, "valid")
    histories, items = items_taken_before(dataset, targets), dataset.event_item[targets]
    certain = np.zeros((len(targets), 3))
    found = fitted(dataset, events, MemoryConfig(), histories, items, certain)
    assert found.weights.strengths == (STRENGTHS[-1],) * 3
    none = fitted(dataset, events, MemoryConfig(), [], items[:0], certain[:0])
    assert none.weights.strengths == (FIRST_STRENGTH,) * 3


def test_a_fixed_strength_is_kept() -> None:
    dataset = tiny_dataset()
    memory = build_memory(dataset, known_events(dataset, 1), tiny_codes(), MemoryConfig(strength=3.0))
    assert memory.weights.strengths == (3.0, 3.0, 3.0)


def test_a_memory_that_is_not_used_decides_no_name() -> None:
    unused, other = (make_config(None, {"memory": {"use": False, "decay": decay}}) for decay in (0.9, 0.5))
    assert dump_config(unused) == dump_config(other)
    used, another = (make_config(None, {"memory": {"decay": decay}}) for decay in (0.9, 0.5))
    assert dump_config(used) != dump_config(another)


def like_content(dataset: Dataset) -> Neighbours:
    """Every item is like the one numbered after it."""
    items = np.arange(dataset.num_items)
    return Neighbours(np.arange(dataset.num_items + 1), (items + 1) % dataset.num_items, np.full(len(items), 0.5))


def test_like_content_counts_with_its_weight() -> None:
    dataset = tiny_dataset()
    config = MemoryConfig(lag_weights=(1.0, 0.4), content_weight=3.0)
    memory = build_memory(dataset, known_events(dataset, 1), tiny_codes(), config, like_content(dataset))
    counts = dict(
        zip(*(values.tolist() for values in memory.neighbours.near(np.array([5, 9]), (1.0, 0.4))), strict=True)
    )
    found = dict(zip(*(values.tolist() for values in memory.near(np.array([5, 9]))), strict=True))
    assert found[10] == pytest.approx(counts.get(10, 0) + 3 * 0.5)
    assert found[6] == pytest.approx(counts.get(6, 0) + 3 * 0.5 * 0.4)
    assert {item: weight for item, weight in found.items() if item not in (6, 10)} == pytest.approx(
        {item: weight for item, weight in counts.items() if item not in (6, 10)}
    )
    assert list(found) == sorted(found)
    without = build_memory(dataset, known_events(dataset, 1), tiny_codes(), config)
    assert without.weights.content_weight == 0 and without.near(np.array([5, 9]))[0].tolist() == list(counts)


def test_the_content_weight_is_the_likeliest() -> None:
    """Targets that are like the last item, and never stood near it, ask for content; a fixed weight stays."""
    dataset = tiny_dataset()
    events, similar = known_events(dataset, 0), like_content(dataset)
    histories = [np.array([item]) for item in range(20)]
    items = np.array([item + 1 for item in range(20)])
    by_model = np.log(np.full((20, 3), 0.1))
    fixed_counting = {"lag_weights": (1.0, 0.5), "distance_weights": (1.0, 0.5), "backward": 0.5}
    chosen = fitted(dataset, events, MemoryConfig(**fixed_counting), histories, items, by_model, similar)
    best = chosen.log_likelihoods(histories, items, by_model).mean()
    assert chosen.weights.content_weight >= 10
    for weight in CONTENT_WEIGHTS:
        config = MemoryConfig(**fixed_counting, content_weight=weight)
        fixed = fitted(dataset, events, config, histories, items, by_model, similar)
        assert fixed.weights.content_weight == weight
        assert fixed.log_likelihoods(histories, items, by_model).mean() <= best + 1e-12
    both = fitted(dataset, events, MemoryConfig(strength=3.0), histories, items, by_model, similar)
    assert both.weights.strengths == (3.0, 3.0, 3.0) and both.weights.content_weight > 0
    none = fitted(dataset, events, MemoryConfig(), [], items[:0], by_model[:0], similar).weights
    assert (none.content_weight, none.strengths) == (FIRST_CONTENT_WEIGHT, (FIRST_STRENGTH,) * 3)
