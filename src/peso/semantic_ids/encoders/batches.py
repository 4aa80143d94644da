"""Batch after batch, each kept on disk under the hash of what decides it: a stopped encoding goes on where it was."""

import logging
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from peso.files import atomic_path, hash_of_json
from peso.semantic_ids.encoders.base import Encoder, ItemContents
from peso.semantic_ids.encoders.concatenation import ConcatenatedEncoder
from peso.semantic_ids.frozen import Vectors

log = logging.getLogger(__name__)

BATCH_ITEMS = 512
_KEY = "vectors"


def encode_in_batches(encoder: Encoder, items: ItemContents, folder: Path) -> Vectors:
    """Vectors of all items, computed or read.

    Args:
        encoder: frozen.
        items: in any order; a batch is found again if the same items come in the same places.
        folder: keeps one file per batch.

    Returns:
        float32 [N, D].
    """
    if isinstance(encoder, ConcatenatedEncoder):  # a part may be known from another concatenation, or alone
        return encoder.join([encode_in_batches(part, items, folder) for part in encoder.parts])
    fingerprint = encoder.state().fingerprint
    batches = []
    for start in range(0, len(items), BATCH_ITEMS):
        batch = items.slice(start, start + BATCH_ITEMS)
        key = hash_of_json([fingerprint, list(batch.ids), list(batch.texts)])
        path = folder / f"{key}.safetensors"
        vectors = _read(path)
        if vectors is None:
            vectors = encoder.encode(batch)
            with atomic_path(path) as temporary:
                save_file({_KEY: vectors}, temporary)
            log.info("encoded %d of %d items", start + len(batch), len(items))
        batches.append(vectors)
    return np.concatenate(batches) if batches else encoder.encode(items)


def _read(path: Path) -> Vectors | None:
    try:
        return load_file(path)[_KEY]
    except (OSError, SafetensorError, KeyError):
        return None  # absent or damaged: it can always be computed
