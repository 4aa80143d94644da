"""Whether a model is still the one that encoded the catalogue."""

import hashlib
import json

import torch
from torch import nn

from peso.errors import ConfigError
from peso.files import hash_of_json
from peso.semantic_ids.frozen import FrozenState

_EXACT = "sha256:"
"""Begins fingerprints of the weights' bytes; earlier ones, of rounded sums, lack it."""


def fingerprint_of_weights(model: nn.Module) -> str:
    """A hash of every parameter's name, type, shape and bytes: the same on every device, with any number of threads."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        # A header says how many bytes follow, so no two models give the same stream.
        digest.update(json.dumps([name, str(weight.dtype), list(weight.shape)]).encode() + b"\n")
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return _EXACT + digest.hexdigest()


def check_same_weights(model: nn.Module, found: FrozenState, wanted: FrozenState) -> None:
    """Compares the model that was loaded with the one that was frozen.

    Args:
        model: as it was loaded.
        found: state of its encoder.
        wanted: state that was frozen.

    Raises:
        ConfigError: they differ, or the frozen one was kept as sums that cannot be had again here.
    """
    source, weights = wanted.facts["source"], wanted.facts["weights"]
    if not weights.startswith(_EXACT):
        if weights != _fingerprint_of_sums(model):
            raise ConfigError(
                f"model {source!r} does not give the sums of weights that an earlier peso kept when the items were "
                "encoded, which depend on threads and device; set OMP_NUM_THREADS and the device as they were then, "
                "or encode the items in a new workspace."
            )
    elif found.fingerprint != wanted.fingerprint:
        raise ConfigError(
            f"model {source!r} has other weights than when the items were encoded, so its vectors "
            "would not fit their codes; bring the old weights back, or encode the items in a new workspace."
        )


def _fingerprint_of_sums(model: nn.Module) -> str:
    return hash_of_json(
        [
            [name, list(weight.shape), *(part.sum(dtype=torch.float64).item() for part in (weight, weight.abs()))]
            for name, weight in model.named_parameters()
        ]
    )
