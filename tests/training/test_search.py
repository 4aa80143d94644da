"""Which candidates a block trains, and how long, by losses that are written down here."""

from collections.abc import Mapping, Sequence

import pytest

from peso.training.candidates import Candidates, Trial
from peso.training.search import RATE, race, walk, warn_at_an_end

EPOCHS = 6


class Written(Candidates):
    """Candidates that reach written losses, one per epoch, and train nothing."""

    def __init__(self, losses: Mapping[float, Sequence[float]]) -> None:
        self.values, self.losses, self.setting = list(losses), losses, RATE
        self._trials: dict[float, Trial] = {}

    @property
    def num_epochs(self) -> int:
        return EPOCHS

    def train(self, value: float, epochs: int) -> Trial:
        epochs = max(epochs, self.epochs_of(value))
        so_far = self.losses[value][:epochs]
        loss = min(so_far)
        self._trials[value] = Trial(1, value, epochs, so_far.index(loss) + 1, loss, 0.0, selected=False)
        return self._trials[value]

    def epochs_of(self, value: float) -> int:
        return self._trials[value].epochs if value in self._trials else 0

    @property
    def trained(self) -> dict[float, int]:
        """Candidate -> epochs, in the order of their first."""
        return {value: trial.epochs for value, trial in self._trials.items()}


def falling(to: float) -> list[float]:
    """Losses that get better with every epoch."""
    return [to + (EPOCHS - epoch) / 8 for epoch in range(1, EPOCHS + 1)]


def walked(**losses: Sequence[float]) -> Written:
    """Candidates in the default's order: the start, then from the lowest to the highest."""
    candidates = Written({float(name.removeprefix("at_").replace("_", ".")): row for name, row in losses.items()})
    walk(candidates)
    return candidates


def overfitting(to: float) -> list[float]:
    """Losses that are best after the second of the epochs."""
    return [to + abs(epoch - 2) / 8 for epoch in range(1, EPOCHS + 1)]


def test_a_walk_tries_both_neighbours_and_stays_where_neither_is_better() -> None:
    candidates = walked(at_4=falling(1.0), at_1=falling(0.1), at_2=falling(2.0), at_8=falling(2.0), at_16=falling(0.1))
    assert candidates.trained == {4: EPOCHS, 8: 2, 2: 2}, "at their pace neither gets there"
    assert candidates.best().value == 4


@pytest.mark.parametrize(("start", "first", "second"), [(falling(1.0), 8, 2), (overfitting(1.0), 2, 8)])
def test_a_walk_begins_where_the_start_points(start: list[float], first: int, second: int) -> None:
    assert list(walked(at_4=start, at_2=falling(2.0), at_8=falling(2.0)).trained) == [4, first, second]


def test_a_walk_goes_down_as_long_as_it_gets_better() -> None:
    candidates = walked(at_4=overfitting(1.0), at_1=falling(0.8), at_2=falling(0.9), at_8=falling(0.1))
    assert candidates.trained == {4: EPOCHS, 2: EPOCHS, 1: EPOCHS}, "downwards to the end, and not up beyond the start"
    assert candidates.best().value == 1


@pytest.mark.parametrize(
    ("losses", "warning"),
    [
        ([0.8, 0.9, 1.0], "Block 1: rate_factor 1 is at an end of training.rate_factors; one below it may do better."),
        ([1.0, 0.9, 0.8], "Block 1: rate_factor 4 is at an end of training.rate_factors; one above it may do better."),
        ([1.0, 0.8, 0.9], None),
    ],
)
def test_a_best_rate_at_an_end_is_warned_of(
    losses: list[float], warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    low, middle, high = losses
    warn_at_an_end(walked(at_2=falling(middle), at_1=falling(low), at_4=falling(high)))
    assert caplog.messages == ([] if warning is None else [warning])


def test_a_single_rate_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_at_an_end(walked(at_1=falling(1.0)))
    assert caplog.messages == []


def test_a_walk_goes_up_as_long_as_it_gets_better() -> None:
    candidates = walked(at_4=falling(1.0), at_2=falling(0.1), at_8=falling(0.9), at_16=falling(0.8), at_32=falling(3.0))
    assert list(candidates.trained) == [4, 8, 16, 32]
    assert candidates.best().value == 16


def test_a_walk_turns_where_the_start_points_the_wrong_way() -> None:
    candidates = walked(at_4=falling(1.0), at_2=falling(0.9), at_1=falling(3.0), at_8=falling(2.0))
    assert list(candidates.trained) == [4, 8, 2, 1]
    assert candidates.best().value == 2


def test_a_walk_waits_for_who_is_behind_and_catches_up() -> None:
    slow = [9.0, 7.0, 5.0, 3.0, 1.5, 0.5]
    candidates = walked(at_4=overfitting(1.0), at_2=slow, at_8=falling(3.0))
    assert candidates.best() == Trial(1, 2, EPOCHS, EPOCHS, 0.5, 0.0, selected=False)
    assert list(candidates.trained) == [4, 2], "upwards of 2 is 4, which is behind already"


def test_a_walk_ends_who_would_stay_behind_at_its_last_pace() -> None:
    # After three of six epochs 3 x 0.3 more would do for 0.9, after four 2 x 0.1 would not.
    candidates = walked(at_4=falling(1.0), at_8=[2.5, 2.1, 1.8, 1.7, 0.0, 0.0])
    assert candidates.trained == {4: EPOCHS, 8: 4}
    worse = walked(at_4=falling(1.0), at_8=[3.0, 2.0, 2.5, 2.6, 0.0, 0.0])
    assert worse.trained == {4: EPOCHS, 8: 3}, "who gets worse gains nothing"
    ahead = walked(at_4=falling(1.0), at_8=[3.0, 0.9, 2.5, 2.6, 2.7, 2.8])
    assert ahead.trained == {4: EPOCHS, 8: EPOCHS}, "who is ahead is trained to the end"


def test_of_equal_losses_the_smaller_rate_is_kept() -> None:
    assert walked(at_4=falling(1.0), at_2=falling(1.0)).best().value == 2
    assert walked(at_4=falling(1.0), at_8=falling(1.0)).best().value == 4


@pytest.mark.parametrize("best", [0.0, 30.0])
def test_a_race_drops_two_after_each_epoch_but_never_strength_0(best: float) -> None:
    losses = {value: falling(5.0 - value / 100) for value in (0.0, 1.0, 3.0, 9.0, 30.0)}
    losses[best] = falling(0.0)
    candidates = Written(losses)
    race(candidates)
    assert candidates.best().value == best
    assert candidates.trained[0.0] == candidates.trained[best] == EPOCHS
    assert candidates.trained[1.0] == 1
    assert sum(candidates.trained.values()) <= 18
