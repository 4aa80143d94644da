"""Whether a model is still the one that encoded the catalogue."""

from torch import float64, nn

from peso.errors import ConfigError
from peso.files import hash_of_json
from peso.semantic_ids.frozen import FrozenState


def fingerprint_of_weights(model: nn.Module) -> str:
    """A hash of every parameter's name, shape, sum and sum of magnitudes: quick, and no two trained models share it."""
    return hash_of_json(
        [
            [name, list(weight.shape), weight.sum(dtype=float64).item(), weight.abs().sum(dtype=float64).item()]
            for name, weight in model.named_parameters()
        ]
    )


def check_same_weights(found: FrozenState, wanted: FrozenState) -> None:
    """Compares the model that was loaded with the one that was frozen.

    Raises:
        ConfigError: they differ.
    """
    if found.fingerprint != wanted.fingerprint:
        raise ConfigError(
            f"model {wanted.facts['source']!r} has other weights than when the items were encoded, so its vectors "
            "would not fit their codes; bring the old weights back, or encode the items in a new workspace."
        )
