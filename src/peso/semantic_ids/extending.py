"""A newer import of a log under the codes of an older one: old items keep theirs, new items get free ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peso.data.dataset import Dataset
from peso.data.storage import load_dataset, read_facts
from peso.files import write_json
from peso.semantic_ids.added_items import AddedItems, load_added_items
from peso.semantic_ids.catalogue import SemanticIds, load_semantic_ids
from peso.semantic_ids.contents import read_workspace_items
from peso.semantic_ids.encoders.batches import encode_in_batches
from peso.semantic_ids.encoding import RECORD, VECTORS_FOLDER
from peso.semantic_ids.growing import with_room
from peso.semantic_ids.item_tokenizer import FOLDER, ItemTokenizer, load_item_tokenizer
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.settling import settle_by_blocks


@dataclass(frozen=True, eq=False)
class ExtendedCodes:
    """Codes of a newer import.

    Attributes:
        semantic_ids: of all its items.
        tokenizer: that of the older workspace; its last level has grown where there are more items than codes.
        record: of the encoding, for `encoding.json`.
        added: items that were added to the older workspace and that no event names yet.
        num_new: items with codes they never had.
    """

    semantic_ids: SemanticIds
    tokenizer: ItemTokenizer
    record: dict[str, Any]
    added: AddedItems
    num_new: int

    def save(self, folder: Path, dataset: Dataset) -> None:
        """Writes codes, tokenizer and record.

        Args:
            folder: `W/data/semantic_ids`.
            dataset: the newer one.
        """
        self.semantic_ids.save(folder, dataset.item_ids)
        self.tokenizer.save(folder / FOLDER)
        write_json(folder / RECORD, self.record)


def extend_codes(older: Path, newer: Path, after: Dataset) -> ExtendedCodes:
    """Codes for a newer import of a log.

    Items are the same where their ids are. Of the others, those of earlier blocks come first.

    Args:
        older: workspace whose items were encoded by peso.
        newer: workspace with the newer import; what it has of codes is not looked at.
        after: its data, in the blocks that count.

    Raises:
        WorkspaceError: codes were imported, or something is missing or damaged.
        ConfigError: the encoder's model is gone or has changed.
    """
    before = load_dataset(older / "data")
    folder = older / "data" / "semantic_ids"
    old, tokenizer = load_semantic_ids(folder, before.item_ids), load_item_tokenizer(folder)
    added = load_added_items(older, old)
    record = read_facts(folder / RECORD, "record of the encoding", {"quantizer": str})
    places = {item: place for place, item in enumerate(after.item_ids)}
    known = np.array([places.get(item, -1) for item in [*before.item_ids, *added.ids]], dtype=np.int64)
    known_codes = np.concatenate([old.codes, added.codes])
    num_new = after.num_items - int((known >= 0).sum())
    items = read_workspace_items(newer / "data", after).contents
    vectors = encode_in_batches(tokenizer.encoder, items, newer / VECTORS_FOLDER)
    is_new = np.ones(after.num_items, dtype=bool)
    is_new[known[known >= 0]] = False
    before_growing = added.codebook or tokenizer.codebook
    codebook = with_room(before_growing, vectors[is_new], known_codes)
    nearest = before_growing.encode(vectors)  # an old item whose nearest word is one of the new has not moved
    nearest[is_new] = codebook.encode(vectors[is_new])
    codes = settle_by_blocks(codebook, vectors, nearest, after.item_first_block, known_codes, known)
    semantic_ids = SemanticIds(codes, nearest, codebook.level_sizes)
    changed: dict[str, Any] = {
        "num_items": after.num_items,
        "level_sizes": list(codebook.level_sizes),
        "num_items_without_vector": int((np.abs(vectors).sum(axis=1) == 0).sum()),
        "num_items_moved_to_a_free_code": semantic_ids.num_moved,
        "error_before": None,
        "error_after": None,
        "extends": {"semantic_ids": old.fingerprint, "num_new": num_new},
    }
    if isinstance(codebook, AdditiveCodebook):
        for name, some in (("error_before", nearest), ("error_after", codes)):
            changed[name] = float(codebook.squared_errors(vectors, some, old.num_levels).mean())
    tokenizer = ItemTokenizer(tokenizer.encoder, codebook)
    return ExtendedCodes(semantic_ids, tokenizer, record | changed, _not_yet_taken(added, places), num_new)


def _not_yet_taken(added: AddedItems, places: dict[str, int]) -> AddedItems:
    rows = [row for row, item in enumerate(added.ids) if item not in places]
    return AddedItems(
        [added.ids[row] for row in rows], [added.titles[row] for row in rows], added.codes[rows], added.vectors[rows]
    )
