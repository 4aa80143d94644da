"""Batch after batch, each kept on disk under the hash of what decides it: a stopped encoding goes on where it was."""

import logging
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class BatchCache:
    """Where the vectors of some items' batches are kept.

    Attributes:
        fingerprint: of the encoder's state.
        items: in any order; a batch is found again if the same items come in the same places.
        folder: keeps one file per batch.
    """

    fingerprint: str
    items: ItemContents
    folder: Path

    @property
    def num_batches(self) -> int:
        """Of all items."""
        return -(-len(self.items) // BATCH_ITEMS)

    def batch(self, number: int) -> ItemContents:
        """The items of a batch."""
        return self.items.slice(number * BATCH_ITEMS, (number + 1) * BATCH_ITEMS)

    def path(self, number: int) -> Path:
        """The file of a batch."""
        batch = self.batch(number)
        key = hash_of_json([self.fingerprint, list(batch.ids), list(batch.texts)])
        return self.folder / f"{key}.safetensors"

    def vectors(self, number: int, encoder: Encoder) -> Vectors:
        """Vectors of a batch, read, or computed and kept; float32 [B, D]."""
        path = self.path(number)
        vectors = _read(path)
        if vectors is None:
            vectors = encoder.encode(self.batch(number))
            with atomic_path(path) as temporary:
                save_file({_KEY: vectors}, temporary)
            log.info("encoded %d of %d items", min((number + 1) * BATCH_ITEMS, len(self.items)), len(self.items))
        return vectors


def encode_in_batches(encoder: Encoder, items: ItemContents, folder: Path) -> Vectors:
    """Vectors of all items, computed or read.

    Args:
        encoder: frozen.
        items: in any order.
        folder: see `BatchCache`.

    Returns:
        float32 [N, D].
    """
    if isinstance(encoder, ConcatenatedEncoder):  # a part may be known from another concatenation, or alone
        return encoder.join([encode_in_batches(part, items, folder) for part in encoder.parts])
    cache = BatchCache(encoder.state().fingerprint, items, folder)
    batches = [cache.vectors(number, encoder) for number in range(cache.num_batches)]
    return np.concatenate(batches) if batches else encoder.encode(items)


def _read(path: Path) -> Vectors | None:
    try:
        return load_file(path)[_KEY]
    except (OSError, SafetensorError, KeyError):
        return None  # absent or damaged: it can always be computed
