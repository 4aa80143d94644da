"""Likelihoods of model and memory together, and the strengths that validation targets choose."""

import numpy as np
import pytest

from peso.config import MemoryConfig
from peso.data.examples import items_taken_before, known_events, targets_of_block
from peso.training.memory import FIRST_STRENGTH, STRENGTHS, build_memory
from worlds import tiny_codes, tiny_dataset


def test_likelihoods_are_the_formula() -> None:
    """Counts of prefixes and the mixture, written out as a loop over levels."""
    dataset, codes = tiny_dataset(), tiny_codes()
    config = MemoryConfig(lag_weights=(1.0,), distance_weights=(1.0,), backward=0.0, strength=4.0)
    memory = build_memory(dataset, known_events(dataset, 1), codes, config)
    targets = targets_of_block(dataset, 1, "test")
    histories, items = items_taken_before(dataset, targets), dataset.event_item[targets]
    by_model = np.log(np.random.default_rng(0).uniform(0.05, 0.9, (len(targets), 3)))
    found = memory.log_likelihoods(histories, items, by_model)
    for row, (history, item) in enumerate(zip(histories, items, strict=True)):
        near, weights = memory.neighbours.near(history, (1.0,))
        expected, behind = 0.0, np.ones(len(near), dtype=bool)
        for level in range(3):
            before = weights[behind].sum()
            behind = behind & (codes[near, level] == codes[item, level])
            expected += np.log((weights[behind].sum() + 4.0 * np.exp(by_model[row, level])) / (before + 4.0))
        assert found[row] == pytest.approx(expected)


def test_the_chosen_strengths_are_the_best_of_each_level() -> None:
    dataset, codes = tiny_dataset(num_users=40), tiny_codes()
    memory = build_memory(dataset, known_events(dataset, 1), codes, MemoryConfig())
    targets = targets_of_block(dataset, 1, "valid")
    histories, items = items_taken_before(dataset, targets), dataset.event_item[targets]
    by_model = np.log(np.random.default_rng(1).uniform(0.05, 0.9, (len(targets), 3)))
    chosen = memory.with_best_strengths(histories, items, by_model)
    best = chosen.log_likelihoods(histories, items, by_model).mean()
    for level in range(3):
        for other in STRENGTHS[::4]:
            strengths = list(chosen.strengths)
            strengths[level] = float(other)
            rival = type(chosen)(chosen.neighbours, codes, chosen.config, tuple(strengths))
            assert rival.log_likelihoods(histories, items, by_model).mean() <= best + 1e-12


def test_a_model_that_knows_better_is_trusted() -> None:
    dataset, codes = tiny_dataset(), tiny_codes()
    memory = build_memory(dataset, known_events(dataset, 1), codes, MemoryConfig())
    targets = targets_of_block(dataset, 1, "valid")
    histories, items = items_taken_before(dataset, targets), dataset.event_item[targets]
    certain = np.zeros((len(targets), 3))
    assert memory.with_best_strengths(histories, items, certain).strengths == (STRENGTHS[-1],) * 3
    assert memory.with_best_strengths([], items[:0], certain[:0]).strengths == (FIRST_STRENGTH,) * 3


def test_a_fixed_strength_is_kept() -> None:
    dataset = tiny_dataset()
    memory = build_memory(dataset, known_events(dataset, 1), tiny_codes(), MemoryConfig(strength=3.0))
    assert memory.strengths == (3.0, 3.0, 3.0)
