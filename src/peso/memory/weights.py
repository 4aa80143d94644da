"""What is open about a memory: how much pairs weigh by place, distance and direction, like content, and the model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from peso.config import MemoryConfig

PLACES = 10
"""How far back in a history, and how far apart, where no weights are given."""

FIRST_STRENGTH = 10.0
"""Of every level while there is nothing to choose by."""

FIRST_CONTENT_WEIGHT = 1.0
"""While there is nothing to choose by."""


def falling(ratio: float, places: int = PLACES) -> tuple[float, ...]:
    """Weights that fall by a ratio from place to place, the first of them 1."""
    return tuple(round(ratio**place, 2) for place in range(places))


@dataclass(frozen=True)
class MemoryWeights:
    """How a memory counts.

    Attributes:
        lag_weights: of the neighbours of a history's last item, of the one before it, and so on.
        distance_weights: of a pair of neighbouring events, of one with an event between, and so on.
        backward: of an item that came before, relative to one that came after.
        content_weight: of an item of the very content of the history's last item, in counts.
        strengths: kappa of each level, the weight of the model.
    """

    lag_weights: tuple[float, ...]
    distance_weights: tuple[float, ...]
    backward: float
    content_weight: float
    strengths: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """As it is written to JSON."""
        return asdict(self)


def weights_of_record(record: Mapping[str, Any]) -> MemoryWeights:
    """What `MemoryWeights.record` wrote."""
    lags: Sequence[float] = record["lag_weights"]
    distances: Sequence[float] = record["distance_weights"]
    strengths: Sequence[float] = record["strengths"]
    return MemoryWeights(tuple(lags), tuple(distances), record["backward"], record["content_weight"], tuple(strengths))


def usual_weights(config: MemoryConfig, num_levels: int, has_content: bool) -> MemoryWeights:
    """What the configuration fixes, and what is usual where it says "auto".

    Args:
        config: fixes or leaves open.
        num_levels: codes per item.
        has_content: whether items have vectors; otherwise content weighs nothing.
    """
    content_weight = FIRST_CONTENT_WEIGHT if config.content_weight == "auto" else config.content_weight
    strength = FIRST_STRENGTH if config.strength == "auto" else config.strength
    return MemoryWeights(
        lag_weights=falling(0.8) if config.lag_weights == "auto" else config.lag_weights,
        distance_weights=falling(0.85) if config.distance_weights == "auto" else config.distance_weights,
        backward=0.75 if config.backward == "auto" else config.backward,
        content_weight=content_weight if has_content else 0.0,
        strengths=(strength,) * num_levels,
    )
