"""Tomorrow's items: codes from the frozen codebook, unique, and no old code moves."""

from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from peso.data.new_items import NewItems, read_new_items
from peso.data.storage import load_dataset
from peso.errors import DataError, WorkspaceError
from peso.semantic_ids.added_items import AddedItems, load_added_items
from peso.semantic_ids.catalogue import load_semantic_ids
from peso.semantic_ids.contents import full_text, read_workspace_items
from peso.semantic_ids.encoders.base import ItemContents
from peso.semantic_ids.encoders.batches import encode_in_batches
from peso.semantic_ids.encoding import VECTORS_FOLDER
from peso.semantic_ids.growing import with_room
from peso.semantic_ids.item_tokenizer import load_item_tokenizer
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.settling import settle


def add_items(workspace: Path, path: Path) -> dict[str, Any]:
    """Gives new items codes and keeps them beside the catalogue, where recommending finds them.

    Args:
        workspace: whose items were encoded by peso.
        path: see `read_new_items`.

    Returns:
        JSON values: `num_added`, `num_items` (all there are now), `num_new_codes` (by which the last level grew, as
        there were more items than codes; see `peso.semantic_ids.growing`), `num_moved` (new items whose nearest code
        was taken), `num_without_vector` (of which the encoder knows nothing, so that their codes say nothing either),
        and `error_new` and `error_old`, the mean squared distance of the new items' and of the catalogue's vectors to
        their nearest codes (None where there are no codewords): where the first is much larger, the codebook does not
        fit.

    Raises:
        DataError: the file is wrong, or an item is in the workspace already.
        WorkspaceError: the codes were imported, another process is adding items, or something is missing or damaged.
        ConfigError: the encoder's model is gone or has changed.
    """
    new = read_new_items(path)
    dataset = load_dataset(workspace / "data")
    lock = FileLock(workspace / ".added_items.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WorkspaceError(f"another process is adding items to {workspace}; wait for it to end.") from None
    try:
        semantic_ids = load_semantic_ids(workspace / "data" / "semantic_ids", dataset.item_ids)
        tokenizer = load_item_tokenizer(workspace / "data" / "semantic_ids")
        added = load_added_items(workspace, semantic_ids)
        _refuse_known(new, {*dataset.item_ids, *added.ids}, path)
        taken = np.concatenate([semantic_ids.codes, added.codes])
        texts = [full_text(title, text) for title, text in zip(new.titles, new.texts, strict=True)]
        vectors = tokenizer.encoder.encode(ItemContents(new.ids, texts))
        before = added.codebook or tokenizer.codebook
        codebook = with_room(before, vectors, taken)
        nearest = codebook.encode(vectors)
        codes = settle(codebook, vectors, nearest, taken)
        error_new = error_old = None
        if isinstance(codebook, AdditiveCodebook):
            items = read_workspace_items(workspace / "data", dataset).contents
            known = encode_in_batches(tokenizer.encoder, items, workspace / VECTORS_FOLDER)
            own = codebook.encode(known)
            error_new, error_old = (
                float(codebook.squared_errors(some, its, semantic_ids.num_levels).mean())
                for some, its in ((vectors, nearest), (known, own))
            )
        AddedItems(
            [*added.ids, *new.ids],
            [*added.titles, *new.titles],
            np.concatenate([added.codes, codes]),
            np.concatenate([added.vectors, vectors]) if len(added.ids) else vectors,
            None if codebook is tokenizer.codebook else codebook,
        ).save(workspace, semantic_ids)
    finally:
        lock.release()
    return {
        "num_added": len(new.ids),
        "num_items": len(taken) + len(new.ids),
        "num_new_codes": codebook.level_sizes[-1] - before.level_sizes[-1],
        "num_moved": int((codes != nearest).any(axis=1).sum()),
        "num_without_vector": int((~vectors.any(axis=1)).sum()),
        "error_new": error_new,
        "error_old": error_old,
    }


def _refuse_known(new: NewItems, known: set[str], path: Path) -> None:
    again = next((item for item in new.ids if item in known), None)
    if again is not None:
        raise DataError(
            f"{path}: item {again!r} has a code in this workspace already; leave it out, codes never change."
        )
