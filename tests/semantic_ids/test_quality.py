"""Quality of codes: each measure by hand, at its bounds, and against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogues import clustered_vectors
from peso.semantic_ids.quality import (
    measure_levels,
    nearest_neighbours,
    perplexity_of,
    purity_of,
    variance_within,
)
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.controls import RandomCodes
from peso.semantic_ids.quantizers.rq_kmeans import ResidualKMeans


def test_by_hand() -> None:
    vectors = np.array([[0], [2], [10], [14]], np.float32)
    codes = np.array([[0, 0], [0, 1], [2, 0], [2, 1]])
    codebook = AdditiveCodebook([np.array([[1], [5], [12]], np.float32), np.array([[-1], [1]], np.float32)])
    first, second = measure_levels(vectors, codes, (3, 2), codebook, ["a", "a", "b", "c"])
    assert (first.num_codes, first.num_used, first.num_prefixes, first.largest_prefix) == (3, 2, 2, 2)
    assert (second.num_codes, second.num_used, second.num_prefixes, second.largest_prefix) == (2, 2, 4, 1)
    assert first.perplexity == pytest.approx(2)
    # Mean 6.5: squares 42.25 + 20.25 + 12.25 + 56.25 = 131; within: 1 + 1 + 4 + 4.
    assert first.variance_within == pytest.approx(10 / 131)
    assert first.codebook_error == pytest.approx(10 / 131)
    # Codewords 0, 2, 11, 13 for 0, 2, 10, 14.
    assert second.codebook_error == pytest.approx(2 / 131)
    assert second.variance_within == pytest.approx(0)
    assert (first.purity, second.purity) == (0.75, 1.0)
    # All three others are neighbours; one of them shares the first code.
    assert first.neighbours_sharing == pytest.approx(1 / 3) == first.neighbours_by_chance
    assert second.neighbours_sharing == 0 == second.neighbours_by_chance


def test_without_codewords_and_categories() -> None:
    (only,) = measure_levels(clustered_vectors(20), np.arange(20)[:, None], (20,))
    assert only.codebook_error is None
    assert only.purity is None
    (empty,) = measure_levels(clustered_vectors(20), np.arange(20)[:, None], (20,), None, [""] * 20)
    assert empty.purity is None


def test_learned_codes_are_better_than_random_ones() -> None:
    vectors = clustered_vectors(200)
    categories = [str(n % 8) for n in range(200)]
    learned, drawn = (
        measure_levels(vectors, quantizer.fit(vectors, np.ones(200), (8, 8), 0).codes, (8, 8), None, categories)[0]
        for quantizer in (ResidualKMeans(), RandomCodes())
    )
    assert learned.variance_within < 0.4 < 0.9 < drawn.variance_within
    assert learned.neighbours_sharing > learned.neighbours_by_chance + 0.5
    assert abs(drawn.neighbours_sharing - drawn.neighbours_by_chance) < 0.05
    assert learned.purity is not None and drawn.purity is not None and drawn.purity_by_chance is not None
    assert learned.purity > 0.7
    assert abs(drawn.purity - drawn.purity_by_chance) < 0.1


def test_perplexity() -> None:
    assert perplexity_of(np.array([4, 4, 0, 4])) == pytest.approx(3)
    assert perplexity_of(np.array([0, 9])) == 1
    assert perplexity_of(np.array([3, 1])) == pytest.approx(0.75**-0.75 * 0.25**-0.25)


@given(seed=st.integers(0, 200), num_groups=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_against_definitions(seed: int, num_groups: int) -> None:
    random = np.random.default_rng(seed)
    groups = np.unique(random.integers(0, num_groups, 30), return_inverse=True)[1]
    labels = random.integers(0, 4, 30)
    vectors = random.normal(size=(30, 3)).astype(np.float32)
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    assert purity_of(groups, labels) == sum(np.bincount(labels[own]).max() for own in members) / 30
    wide = vectors.astype(np.float64)
    within = sum(((wide[own] - wide[own].mean(axis=0)) ** 2).sum() for own in members)
    assert variance_within(vectors, groups) == pytest.approx(within / ((wide - wide.mean(axis=0)) ** 2).sum())


def test_neighbours_against_all_distances() -> None:
    vectors = clustered_vectors(40)
    asked, neighbours = nearest_neighbours(vectors, 3)
    assert asked.tolist() == list(range(40))
    distances = ((vectors[:, None].astype(np.float64) - vectors) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    assert neighbours.tolist() == distances.argsort(axis=1)[:, :3].tolist()
    assert nearest_neighbours(vectors[:3], 10)[1].shape == (3, 2)


def test_equal_vectors_have_no_variance() -> None:
    assert variance_within(np.ones((4, 2), np.float32), np.array([0, 0, 1, 1])) == 0
