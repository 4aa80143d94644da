"""Is a difference between two methods more than luck? Paired bootstrap over users, with the spread between seeds.

The statistic is the mean over blocks of the mean over targets, averaged over seeds: the figure a result reports. Two
sources of luck count. Users: they are resampled as clusters, so a user's targets in all blocks and seeds move together.
Seeds: they are too few to resample (three seeds that agree would look certain, which happens by chance one time in four),
so the seeds' part is Student's t with S - 1 degrees of freedom, exact for normal differences between seeds.

Array legend: T targets of one seed, S seeds, U users, B blocks, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from peso.errors import DataError
from peso.evaluation.summary import metric_values

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95
_CHUNK_ELEMENTS = 2_000_000  # resampled users held at once: 16 MB of weights


@dataclass(frozen=True)
class Comparison:
    """What a paired comparison of two methods found.

    Attributes:
        metric: the metric compared.
        ours: our mean over blocks.
        theirs: their mean over blocks.
        difference: ours - theirs.
        relative_difference: difference / |theirs|; None where theirs is 0.
        low: lower end of the 95 % interval of the difference.
        high: upper end of the 95 % interval of the difference.
        p_value: two-sided, in (0, 1]; never below 2 / (num_resamples + 1).
        num_users: users resampled.
        num_seeds: seeds paired; with 1 the interval speaks of that seed alone.
        num_targets: targets of one seed.
    """

    metric: str
    ours: float
    theirs: float
    difference: float
    relative_difference: float | None
    low: float
    high: float
    p_value: float
    num_users: int
    num_seeds: int
    num_targets: int


@dataclass(frozen=True)
class BlockMean:
    """One method's mean in one block, with its 95 % interval.

    Attributes:
        block: the targets' block; None for the mean over blocks.
        mean: mean over the block's targets and seeds.
        low: lower end of the interval.
        high: upper end of the interval.
        num_targets: targets of one seed.
    """

    block: int | None
    mean: float
    low: float
    high: float
    num_targets: int


@dataclass(frozen=True)
class _Sums:
    """Sums per user and block, all that a resample of users needs.

    Attributes:
        values: [S, U, B], sum of the metric over a user's targets.
        counts: [U, B], number of a user's targets.
        blocks: block number of each column.
    """

    values: FloatArray
    counts: FloatArray
    blocks: list[int]


def paired_bootstrap(
    ours: pl.DataFrame,
    theirs: pl.DataFrame,
    metric: str,
    num_resamples: int = 10_000,
    seed: int = 0,
    first_block: int = 1,
) -> Comparison:
    """Compares two methods on the same targets.

    Args:
        ours: scored targets of one protocol, all seeds below each other: `seed` (may be null), `block`, `event`,
            `user_id`, and `rank` or `log_likelihood`.
        theirs: the same for the other method. A side with the single seed null has no randomness and is paired with
            every seed of the other side; otherwise both sides need the same seeds.
        metric: one of `METRICS`.
        num_resamples: resamples R.
        seed: of the resampling; the same seed gives the same numbers.
        first_block: targets of earlier blocks are left out; 1 leaves out the base.

    Returns:
        The comparison. Its p-value is twice the smaller of (number of resampled differences <= 0, >= 0) plus one, over
        R + 1. Noise that is neither the user's nor the seed's counts twice, so the test errs on the careful side.

    Raises:
        DataError: a target is missing or repeated on one side, the seeds differ, or a value is missing or not finite.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16; Owen, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1(2), 2007, on two crossed sources of luck.
    """
    sides = [_select(frame, metric, first_block) for frame in (ours, theirs)]
    seeds = [side["seed"].unique().sort().to_list() for side in sides]
    if [None] not in seeds and seeds[0] != seeds[1]:
        raise DataError(f"the seeds differ, {seeds[0]} against {seeds[1]}; compare runs with the same seeds.")
    keys = ["block", "event", "user_id"] if [None] in seeds else ["seed", "block", "event", "user_id"]
    many, few = sides if seeds[1] == [None] else sides[::-1]
    paired = many.join(few.drop("seed") if [None] in seeds else few, on=keys, how="inner", nulls_equal=True)
    expected = [len(sides[0]), len(sides[1]) * (len(many) // len(few) if [None] in seeds else 1)]
    if [len(paired)] * 2 != expected:
        raise DataError(
            f"only {len(paired)} of {max(expected)} targets occur on both sides; "
            "compare results of the same data, protocol and blocks."
        )
    if many is not sides[0]:
        paired = paired.rename({"value": "value_right", "value_right": "value"})
    own = _sums(paired, pl.col("value"))
    their = _sums(paired, pl.col("value_right"))
    own_mean, their_mean = (float(_mean_of_blocks(s.values.mean(axis=0).sum(axis=0), s)) for s in (own, their))
    gap = _Sums(own.values - their.values, own.counts, own.blocks)
    difference, resampled = _resampled_means(gap, num_resamples, np.random.default_rng(seed))
    overall = resampled[:, -1]
    low, high = _interval(overall)
    smaller = min(np.count_nonzero(overall <= 0), np.count_nonzero(overall >= 0))
    return Comparison(
        metric=metric,
        ours=own_mean,
        theirs=their_mean,
        difference=float(difference[-1]),
        relative_difference=float(difference[-1]) / abs(their_mean) if their_mean else None,
        low=low,
        high=high,
        p_value=min(1.0, 2 * (smaller + 1) / (num_resamples + 1)),
        num_users=gap.values.shape[1],
        num_seeds=gap.values.shape[0],
        num_targets=int(gap.counts.sum()),
    )
