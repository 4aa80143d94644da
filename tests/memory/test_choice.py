"""Weights follow what targets show, and stay where targets do not tell."""

from dataclasses import replace

import numpy as np
import pytest

from peso.config import MemoryConfig
from peso.data.dataset import Dataset
from peso.data.examples import items_taken_before, known_events, targets_of_block
from peso.memory import choice
from peso.memory.choice import BACKWARD, COUNTING, LAG_RATIOS, chosen_weights, targets_to_choose_by
from peso.memory.evidence import Evidence, gather_evidence
from peso.memory.mixture import mixed_log_probabilities
from peso.memory.weights import MemoryWeights, falling, usual_weights, weights_of_record
from worlds import tiny_codes, tiny_dataset

OPEN = MemoryConfig(prefix_power=0.0)
USUAL = usual_weights(OPEN, num_levels=1, has_content=False)
UNSURE = np.log(np.full((200, 1), 0.01))


def evidence_of(rows: list[tuple[int, int, int, bool]]) -> Evidence:
    """Each target has one neighbour that names it and, at the given place, distance and direction, one that does not.

    Args:
        rows: per target: place, distance - 1 and direction of a count of 5, and whether the target is what it names.
    """
    counts = np.zeros((len(rows), 2, 10, 10, 2))
    for row, (lag, distance, direction, is_target) in enumerate(rows):
        counts[row, 0, lag, distance, direction] += 5
        counts[row, :, 0, 0, 0] += 5
        if is_target:
            counts[row, 1, lag, distance, direction] += 5
            counts[row, 1, 0, 0, 0] -= 5
    return Evidence(counts, None)


def test_far_places_lose_weight_where_near_ones_know() -> None:
    found = chosen_weights(evidence_of([(4, 0, 0, False)] * 200), UNSURE, OPEN, USUAL, COUNTING)
    assert found.lag_weights == falling(min(LAG_RATIOS))
    assert (found.distance_weights, found.backward) == (USUAL.distance_weights, USUAL.backward)


def test_far_places_gain_weight_where_they_know() -> None:
    found = chosen_weights(evidence_of([(4, 0, 0, True)] * 200), UNSURE, OPEN, USUAL, COUNTING)
    assert found.lag_weights == falling(max(LAG_RATIOS))


def test_what_came_before_loses_weight_where_it_misleads() -> None:
    found = chosen_weights(evidence_of([(0, 0, 1, False)] * 200), UNSURE, OPEN, USUAL, COUNTING)
    assert found.backward == min(BACKWARD) and found.lag_weights == USUAL.lag_weights


def test_distances_follow_as_well() -> None:
    found = chosen_weights(evidence_of([(0, 5, 0, False)] * 200), UNSURE, OPEN, USUAL, COUNTING)
    assert found.distance_weights == falling(min(choice.DISTANCE_RATIOS))


def test_targets_that_disagree_change_nothing() -> None:
    """Far places mislead as often as they know, by nearly as much: the gain is within its error."""
    rows = [(4, 0, 0, number % 2 == 0) for number in range(10)]
    found = chosen_weights(evidence_of(rows), UNSURE[:10], OPEN, USUAL, COUNTING)
    assert replace(found, strengths=USUAL.strengths) == USUAL


@pytest.mark.parametrize("number", [0, 1])
def test_of_one_target_nothing_follows(number: int) -> None:
    found = chosen_weights(evidence_of([(4, 0, 0, False)] * number), UNSURE[:number], OPEN, USUAL, COUNTING)
    assert replace(found, strengths=USUAL.strengths) == USUAL


def test_what_is_fixed_stays() -> None:
    fixed = MemoryConfig(lag_weights=(1.0, 0.9), distance_weights=(1.0,), backward=0.3, strength=7.0)
    start = usual_weights(fixed, num_levels=1, has_content=False)
    assert start == MemoryWeights((1.0, 0.9), (1.0,), 0.3, 0.0, (7.0,))
    counts = np.random.default_rng(0).uniform(0, 5, (50, 2, 2, 1, 2))
    counts[:, 1] *= 0.1
    assert chosen_weights(Evidence(counts, None), UNSURE[:50], fixed, start, COUNTING) == start


def test_targets_are_no_less_likely_than_usual() -> None:
    dataset, codes = tiny_dataset(num_users=60), tiny_codes()
    targets = targets_of_block(dataset, 1, "valid")
    by_model = np.log(np.random.default_rng(3).uniform(0.05, 0.9, (len(targets), 3)))
    config = MemoryConfig()
    usual = usual_weights(config, 3, has_content=False)
    histories, items, events = (
        items_taken_before(dataset, targets),
        dataset.event_item[targets],
        known_events(dataset, 1),
    )
    evidence = gather_evidence(dataset, events, codes, histories, items, config, usual, has_repeats=False)

    def likelihood(weights: MemoryWeights) -> float:
        counts = evidence.remembered(weights)
        strengths, power = np.array(weights.strengths), config.prefix_power
        return float(mixed_log_probabilities(counts[:, :-1], counts[:, 1:], by_model, strengths, power).sum(1).mean())

    found = chosen_weights(evidence, by_model, config, usual, COUNTING)
    assert likelihood(found) >= max(likelihood(replace(found, strengths=usual.strengths)), likelihood(usual))
    assert weights_of_record(found.record()) == found


def test_a_choice_rests_on_a_spread_of_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset: Dataset = tiny_dataset(num_users=40)
    everything = targets_of_block(dataset, 1, "valid")
    assert targets_to_choose_by(dataset, 1).tolist() == everything.tolist()
    monkeypatch.setattr(choice, "MOST_TARGETS", 7)
    some = targets_to_choose_by(dataset, 1)
    assert len(set(some.tolist())) == 7 and np.isin(some, everything).all()
    assert some[0] == everything[0] and some[-1] == everything[-1]
