"""Unique codes at minimum cost: the best of all permutations, nothing of the past touched, capacity respected."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogues import clustered_vectors
from peso.data.dataset import IntArray
from peso.errors import DataError
from peso.semantic_ids.matching import match_unique
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.rq_kmeans import ResidualKMeans

NOTHING = np.empty((0, 2), dtype=np.int64)


def line_codebook() -> AdditiveCodebook:
    """Two levels on a line: 0 or 10, then 0, 1, 2 or 3 more."""
    return AdditiveCodebook([np.array([[0], [10]], dtype=np.float32), np.array([[0], [1], [2], [3]], dtype=np.float32)])


def places(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def test_by_hand() -> None:
    vectors = places(1.2, 0.9, 12.0)
    codes = line_codebook().encode(vectors)
    assert codes.tolist() == [[0, 1], [0, 1], [1, 2]]
    match = match_unique(line_codebook(), vectors, codes, NOTHING)
    # 1.2 to 2 and 0.9 to 1 cost .64 + .01; the other way .04 + 1.21; 0 for 0.9 and 1 for 1.2 cost .81 + .04.
    assert match.codes.tolist() == [[0, 2], [0, 1], [1, 2]]
    assert match.error_before == pytest.approx((0.04 + 0.01) / 3)
    assert match.error_after == pytest.approx((0.64 + 0.01) / 3)


def test_earlier_items_keep_their_codes() -> None:
    vectors = places(1.0, 1.1)
    codes = line_codebook().encode(vectors)
    match = match_unique(line_codebook(), vectors, codes, np.array([[0, 1], [0, 2]]))
    assert match.codes.tolist() == [[0, 0], [0, 3]]


def test_a_full_prefix_spills_to_the_nearest_branch_with_room() -> None:
    vectors = places(0.0, 1.0, 2.0, 3.0, 3.2)
    codes = line_codebook().encode(vectors)
    match = match_unique(line_codebook(), vectors, codes, NOTHING)
    assert match.codes.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0]]


def test_one_level() -> None:
    codebook = AdditiveCodebook([np.array([[0], [1], [5]], dtype=np.float32)])
    vectors = places(0.1, 0.2, 0.0)
    match = match_unique(codebook, vectors, codebook.encode(vectors), np.empty((0, 1), dtype=np.int64))
    assert sorted(match.codes[:, 0].tolist()) == [0, 1, 2]
    # Only one can stay at 0, so the two on the right go on: .2 to 5 and .1 to 1, or the other way round, cost
    # 23.04 + .81 against 24.01 + .64.
    assert match.codes[:, 0].tolist() == [1, 2, 0]


@given(seed=st.integers(0, 300), num_items=st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_no_other_assignment_behind_a_prefix_costs_less(seed: int, num_items: int) -> None:
    random = np.random.default_rng(seed)
    codebook = AdditiveCodebook([np.zeros((1, 3), np.float32), random.normal(size=(6, 3)).astype(np.float32)])
    vectors = (0.1 * random.normal(size=(num_items, 3))).astype(np.float32)
    codes = codebook.encode(vectors)
    taken = np.array([[0, int(codes[0, 1])]])  # so that the prefix collides
    match = match_unique(codebook, vectors, codes, taken)
    free = [code for code in range(6) if code != taken[0, 1]]
    words = codebook.codewords[1].astype(np.float64)
    costs = [
        sum(float(((vectors[item] - words[code]) ** 2).sum()) for item, code in enumerate(order))
        for order in permutations(free, num_items)
    ]
    assert match.error_after * num_items == pytest.approx(min(costs), rel=1e-9)


@given(
    sizes=st.sampled_from([(3, 4), (2, 2, 2, 2), (5,), (2, 3, 4)]),
    share=st.floats(0.1, 1.0),
    share_taken=st.floats(0.0, 0.9),
    seed=st.integers(0, 200),
)
@settings(max_examples=80, deadline=None)
def test_properties(sizes: tuple[int, ...], share: float, share_taken: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    space = int(np.prod(sizes))
    num_items = max(1, int(share * space))
    num_taken = int(share_taken * (space - num_items))
    codebook = AdditiveCodebook([random.normal(size=(size, 2)).astype(np.float32) for size in sizes])
    vectors = random.normal(size=(num_items, 2)).astype(np.float32)
    chosen = random.permutation(space)[:num_taken]
    taken: IntArray = np.stack(np.unravel_index(chosen, sizes), axis=1).astype(np.int64)
    codes = codebook.encode(vectors)
    match = match_unique(codebook, vectors, codes, taken)
    together = np.concatenate([taken, match.codes])
    assert len(np.unique(together, axis=0)) == len(together)
    assert ((match.codes >= 0) & (match.codes < np.array(sizes))).all()
    # Behind a prefix where nobody collides, nothing moves.
    crowd = [tuple(row[:-1]) for row in np.concatenate([taken, codes]).tolist()]
    for own, given_code in zip(match.codes.tolist(), codes.tolist(), strict=True):
        if crowd.count(tuple(given_code[:-1])) == 1:
            assert own == given_code


def test_less_distortion_than_the_next_free_code() -> None:
    from peso.semantic_ids.assignment import make_unique

    vectors = clustered_vectors(300)
    fit = ResidualKMeans().fit(vectors, np.ones(300), (8, 4, 16), 0)
    match = match_unique(fit.codebook, vectors, fit.codes, np.empty((0, 3), dtype=np.int64))  # type: ignore[arg-type]
    assert isinstance(fit.codebook, AdditiveCodebook)
    cyclic = make_unique(fit.codes, (8, 4, 16), np.arange(300))
    error = fit.codebook.squared_errors(vectors, cyclic, 3).mean()
    assert match.error_before < match.error_after < error


def test_too_many_items_are_refused() -> None:
    vectors = places(*range(9))
    with pytest.raises(DataError, match="9 items cannot have distinct codes of 8"):
        match_unique(line_codebook(), vectors, line_codebook().encode(vectors), NOTHING)


def test_a_space_beyond_whole_numbers_is_refused() -> None:
    codebook = AdditiveCodebook([np.zeros((2**16, 1), np.float32)] * 4)
    with pytest.raises(DataError, match="more than 2\\^62 codes"):
        match_unique(codebook, places(0.0), np.zeros((1, 4), np.int64), np.empty((0, 4), dtype=np.int64))
