"""Quantizers by name. Each is imported when it is asked for, so that residual k-means loads no torch."""

from typing import get_args

from peso.errors import ConfigError
from peso.semantic_ids.frozen import FrozenState
from peso.semantic_ids.quantizers.base import Codebook, Quantizer
from peso.types import QuantizerName


def build_quantizer(name: str) -> Quantizer:
    """A quantizer that has learned nothing yet.

    Raises:
        ConfigError: an unknown name.
    """
    match name:
        case "rq-kmeans":
            from peso.semantic_ids.quantizers.rq_kmeans import ResidualKMeans

            return ResidualKMeans()
        case "rq-vae" | "rq-vae-straight-through":
            from peso.semantic_ids.quantizers.rqvae import RqVaeQuantizer

            return RqVaeQuantizer("rotation" if name == "rq-vae" else "straight_through")
        case "product":
            from peso.semantic_ids.quantizers.product import ProductKMeans

            return ProductKMeans()
        case "fsq":
            from peso.semantic_ids.quantizers.fsq import FiniteScalarQuantizer

            return FiniteScalarQuantizer()
        case "random" | "balanced":
            from peso.semantic_ids.quantizers.controls import BalancedCodes, RandomCodes

            return RandomCodes() if name == "random" else BalancedCodes()
        case _:
            raise ConfigError(f"no quantizer {name!r}; choose from {', '.join(get_args(QuantizerName))}.")


def restore_codebook(state: FrozenState) -> Codebook:
    """The codebook that gave a state."""
    from peso.semantic_ids.quantizers.additive import AdditiveCodebook
    from peso.semantic_ids.quantizers.controls import HashCodebook

    return HashCodebook.from_state(state) if state.kind == HashCodebook.kind else AdditiveCodebook.from_state(state)
