"""Whether a model is still the one that encoded the catalogue."""

import hashlib
import json

import torch
from torch import nn

from peso.errors import ConfigError
from peso.semantic_ids.frozen import FrozenState


def fingerprint_of_weights(model: nn.Module) -> str:
    """A hash of every parameter's name, type, shape and bytes: the same on every device, with any number of threads."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        # A header says how many bytes follow, so no two models give the same stream.
        digest.update(json.dumps([name, str(weight.dtype), list(weight.shape)]).encode() + b"\n")
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
