"""A workspace whose codebook has gone on learning: the same data, blocks learned so far as block 0, a few new codes.

What the items of later blocks are plays no part: the codebook learns from items that occur up to the last learned
block, these move within the allowed share, and later items, whose codes no model has met, get theirs anew, in the order
of their blocks.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from peso.data.dataset import IntArray
from peso.data.merged_blocks import merge_first_blocks, save_merged
from peso.data.storage import load_dataset, read_facts
from peso.errors import ConfigError, WorkspaceError
from peso.files import atomic_directory, write_json
from peso.semantic_ids.added_items import load_added_items
from peso.semantic_ids.catalogue import SemanticIds, load_semantic_ids
from peso.semantic_ids.contents import read_workspace_items
from peso.semantic_ids.encoders.batches import encode_in_batches
from peso.semantic_ids.encoding import RECORD, VECTORS_FOLDER
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.item_tokenizer import FOLDER, ItemTokenizer, load_item_tokenizer
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.relearning import Relearned, relearn
from peso.semantic_ids.settling import settle, settle_by_blocks

_FREE_WORDS = ("rq-kmeans", "rq-vae", "rq-vae-straight-through")
"""Quantizers whose codewords may lie anywhere."""


def refresh_workspace(workspace: Path, target: Path, last: int, share: float) -> dict[str, Any]:
    """Writes a new workspace with a codebook that has learned from the items of blocks 0 to `last`.

    Args:
        workspace: whose items were encoded by peso; it is left as it is.
        target: folder of the new workspace; must hold no data yet.
        last: the last block that models have learned; blocks up to it become block 0.
        share: the largest share of the items up to there that may move, 0 to 1; at 0 the codebook stays too.

    Returns:
        JSON values, as kept in the new `encoding.json` under `refresh`: `last_block`, `share`, `num_items` (up to the
        last block), `num_moved`, `num_left` (whose codes are wrong and stay), `error_before` and `error_after` (their
        mean squared distance to their codes), `num_later` (items of later blocks, or of none, with new codes).

    Raises:
        ConfigError: the share is no share, or the encoder's model is gone or has changed.
        DataError: no block follows `last`.
        WorkspaceError: codes were imported or their codewords may not move freely; the target holds data; or something
            is missing or damaged.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"--share {share:g}: give the largest share of items that may move, from 0 to 1.")
    if (target / "data").exists():
        raise WorkspaceError(f"{target} holds data already; give a new folder.")
    dataset = load_dataset(workspace / "data")
    folder = workspace / "data" / "semantic_ids"
    old = load_semantic_ids(folder, dataset.item_ids)
    tokenizer = load_item_tokenizer(folder)
    record = read_facts(folder / RECORD, "record of the encoding", {"quantizer": str})
    if record["quantizer"] not in _FREE_WORDS or not isinstance(tokenizer.codebook, AdditiveCodebook):
        raise WorkspaceError(
            f"codes of {record['quantizer']} are not refreshed, their codewords may not lie anywhere; refresh those of "
            f"{', '.join(_FREE_WORDS)}, or encode the items in a new workspace."
        )
    added = load_added_items(workspace, old)
    grown = tokenizer.codebook if added.codebook is None else added.codebook
    assert isinstance(grown, AdditiveCodebook)
    merged = merge_first_blocks(dataset, last)
    items = read_workspace_items(workspace / "data", dataset).contents
    vectors = encode_in_batches(tokenizer.encoder, items, workspace / VECTORS_FOLDER)
    first_blocks = merged.item_first_block
    seen = np.flatnonzero(first_blocks == 0)
    learned = Relearned(grown, old.codes[seen], np.zeros(len(seen), dtype=bool), 0)
    if share:
        learned = relearn(grown, vectors[seen], old.codes[seen], int(share * len(seen)))
    codebook = learned.codebook
    source_codes = codebook.encode(vectors)
    codes = settle_by_blocks(codebook, vectors, source_codes, first_blocks, learned.codes, seen)
    semantic_ids = SemanticIds(codes, source_codes, codebook.level_sizes)
    if len(added.ids):
        settled = settle(codebook, added.vectors, codebook.encode(added.vectors), codes)
        added = replace(added, codes=settled, codebook=None)
    facts = {
        "last_block": last,
        "share": share,
        "num_items": len(seen),
        "num_moved": int(learned.is_moved.sum()),
        "num_left": learned.num_left,
        "error_before": _error(grown, vectors[seen], old.codes[seen]),
        "error_after": _error(codebook, vectors[seen], learned.codes),
        "num_later": len(codes) - len(seen),
    }
    if len(added.ids):  # first, for a workspace is one once it has data
        added.save(target, semantic_ids)
    with atomic_directory(target / "data") as temporary:
        save_merged(workspace / "data", merged, temporary)
        semantic_ids.save(temporary / "semantic_ids", dataset.item_ids)
        ItemTokenizer(tokenizer.encoder, codebook).save(temporary / "semantic_ids" / FOLDER)
        changed = {
            "level_sizes": list(codebook.level_sizes),
            "num_items_learned_from": len(seen),
            "num_items_moved_to_a_free_code": semantic_ids.num_moved,
            "error_before": _error(codebook, vectors, source_codes),
            "error_after": _error(codebook, vectors, codes),
            "refresh": facts | {"semantic_ids_before": old.fingerprint},
        }
        write_json(temporary / "semantic_ids" / RECORD, record | changed)
    return facts


def _error(codebook: AdditiveCodebook, vectors: Vectors, codes: IntArray) -> float:
    return float(codebook.squared_errors(vectors, codes, len(codebook.level_sizes)).mean())
