"""Vectors of items on many machines: batches go to actors that hold the frozen encoder, and into the usual cache.

`encode_workspace` finds every batch in the cache afterwards, so codes are made as ever, in one process.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from peso.data.storage import load_dataset
from peso.scale.batches import Pool, done_in_pool
from peso.semantic_ids.contents import read_workspace_items
from peso.semantic_ids.encoders.base import Encoder
from peso.semantic_ids.encoders.batches import BatchCache
from peso.semantic_ids.encoders.registry import build_parts, restore_encoder
from peso.semantic_ids.encoding import VECTORS_FOLDER, EncodingRequest, encode_workspace, encoder_request
from peso.semantic_ids.frozen import FrozenState

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class BatchWork:
    """A piece is a batch.

    Attributes:
        workspace: with data.
        state: of the encoder, which is none that joins others.
    """

    workspace: Path
    state: FrozenState

    def load(self) -> tuple[BatchCache, Encoder]:
        """See `Work.load`."""
        dataset = load_dataset(self.workspace / "data")
        items = read_workspace_items(self.workspace / "data", dataset).contents
        cache = BatchCache(self.state.fingerprint, items, self.workspace / VECTORS_FOLDER)
        return cache, restore_encoder(self.state)

    def do(self, loaded: tuple[BatchCache, Encoder], number: int) -> int:
        """See `Work.do`; in items."""
        cache, encoder = loaded
        return len(cache.vectors(number, encoder))


def encode_in_pool(workspace: Path, request: EncodingRequest, pool: Pool) -> Path:
    """Does `encode_workspace` with the vectors computed in the cluster that this process is in.

    Args:
        workspace: see there; every machine must see it, and the encoder's model, under the same path.
        request: what to learn.
        pool: the actors.

    Returns:
        The record of what was done.

    Raises:
        PesoError: see `encode_workspace`.
    """
    workspace = workspace.resolve()
    _, asked = encoder_request(workspace, request)
    for part in build_parts(request.encoder, asked):
        cache = BatchCache(part.state().fingerprint, asked.items, workspace / VECTORS_FOLDER)
        missing = [number for number in range(cache.num_batches) if not cache.path(number).exists()]
        num_done = 0
        for num_items in done_in_pool(BatchWork(workspace, part.state()), missing, pool):
            num_done += num_items
            log.info("%s: encoded %d items", part.state().kind, num_done)
    return encode_workspace(workspace, request)
