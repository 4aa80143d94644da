"""Does the codebook still fit? Items that came later, block by block, against what unseen items cost without drift.

A codebook is learned from the items of block 0, so it fits these better than any others. What a new item would cost if
nothing had changed is estimated on block 0 itself: the same quantizer learns from four fifths of its items, and the
other fifth is encoded like new ones.

Shapes: N items, M levels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peso.data.dataset import IntArray
from peso.data.storage import load_dataset, read_facts
from peso.errors import DataError, WorkspaceError
from peso.seeding import derive_seed
from peso.semantic_ids.catalogue import load_semantic_ids
from peso.semantic_ids.contents import read_workspace_items
from peso.semantic_ids.encoders.batches import encode_in_batches
from peso.semantic_ids.encoding import RECORD, VECTORS_FOLDER
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.item_tokenizer import load_item_tokenizer
from peso.semantic_ids.quality import perplexity_of
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.registry import build_quantizer

HELD_OUT_SHARE = 0.2
LARGEST_ERROR_RATIO = 1.25
"""More than this many times the error of held-out items of block 0, and the codebook is out of date."""
LARGEST_RISE = 0.1
"""If moving to free codes adds more than this share to the error of a block's new items, the codebook is too full."""
LEAST_ITEMS = 20
"""Fewer new items than this decide nothing."""


@dataclass(frozen=True)
class BlockDrift:
    """The items that occur first in one block.

    Attributes:
        block: 0 for those that the codebook was learned from.
        num_items: how many.
        num_without_vector: of which the encoder knows nothing.
        error: mean squared distance to the codebook's own codes, of items with a vector; None without any.
        error_ratio: the same over that of held-out items of block 0; None in block 0.
        moved_share: share of these that had to take another code than the codebook's; None without any.
        rise: by what share that raised their error; None without any.
        perplexity: of their codes of level 1.
    """

    block: int
    num_items: int
    num_without_vector: int
    error: float | None
    error_ratio: float | None
    moved_share: float | None
    rise: float | None
    perplexity: float


@dataclass(frozen=True)
class TokenizerDrift:
    """All blocks, and what follows.

    Attributes:
        held_out_error: mean squared distance of unseen items of block 0 to the codes of a codebook without them.
        blocks: those in which items occur first, ascending.
        refresh: whether the codebook should be learned anew.
        reason: one sentence.
    """

    held_out_error: float
    blocks: tuple[BlockDrift, ...]
    refresh: bool
    reason: str


def measure_drift(workspace: Path) -> TokenizerDrift:
    """Measures how well a workspace's codebook fits the items of every block.

    Args:
        workspace: whose items were encoded by peso, with codewords.

    Raises:
        WorkspaceError: there is no codebook, it has no codewords, or something is missing or damaged.
        DataError: block 0 has too few items to hold some out.
        ConfigError: the encoder's model is gone or has changed.
    """
    dataset = load_dataset(workspace / "data")
    folder = workspace / "data" / "semantic_ids"
    semantic_ids = load_semantic_ids(folder, dataset.item_ids)
    tokenizer = load_item_tokenizer(folder)
    if not isinstance(tokenizer.codebook, AdditiveCodebook):
        raise WorkspaceError(
            f"the codes of {workspace} were not made by nearness, so no distance can be out of date; "
            "`peso items encode` in a new workspace learns codewords."
        )
    record = read_facts(folder / RECORD, "record of the encoding", {"quantizer": str, "seed": int})
    items = read_workspace_items(workspace / "data", dataset).contents
    vectors = encode_in_batches(tokenizer.encoder, items, workspace / VECTORS_FOLDER)
    has_vector = np.abs(vectors).sum(axis=1) > 0
    first_blocks = dataset.item_first_block
    held_out = _held_out_error(
        record["quantizer"], vectors[(first_blocks == 0) & has_vector], semantic_ids.level_sizes, record["seed"]
    )
    nearest = tokenizer.codebook.encode(vectors)
    errors, errors_after = (
        tokenizer.codebook.squared_errors(vectors, codes, semantic_ids.num_levels)
        for codes in (nearest, semantic_ids.codes)
    )
    is_moved = np.not_equal(semantic_ids.codes, semantic_ids.source_codes).sum(axis=1) > 0
    blocks = []
    for block in range(dataset.num_blocks):
        new = np.flatnonzero(first_blocks == block)
        if not len(new):
            continue
        known = new[has_vector[new]]
        error = float(errors[known].mean()) if len(known) else None
        blocks.append(
            BlockDrift(
                block=block,
                num_items=len(new),
                num_without_vector=len(new) - len(known),
                error=error,
                error_ratio=None if error is None or block == 0 else error / held_out,
                moved_share=float(is_moved[known].mean()) if len(known) else None,
                rise=float(errors_after[known].mean()) / error - 1 if error else None,
                perplexity=perplexity_of(np.bincount(semantic_ids.codes[new, 0])),
            )
        )
    return TokenizerDrift(held_out, tuple(blocks), *judge(blocks))


def judge(blocks: list[BlockDrift]) -> tuple[bool, str]:
    """Whether the latest block with enough new items calls for another codebook, and why, in one sentence."""
    later = [one for one in blocks if one.block > 0 and one.num_items >= LEAST_ITEMS]
    if not later:
        return False, f"No later block has {LEAST_ITEMS} new items; there is nothing to judge the codebook by."
    last = later[-1]
    if last.error_ratio is not None and last.error_ratio > LARGEST_ERROR_RATIO:
        return True, (
            f"New items of block {last.block} are {last.error_ratio:.2f} times as far from their codes as unseen items "
            f"of block 0 (limit {LARGEST_ERROR_RATIO}): learn the codebook anew."
        )
    if last.rise is not None and last.rise > LARGEST_RISE:
        return True, (
            f"New items of block {last.block} found their nearest codes taken, and the free ones raise their error by "
            f"{last.rise:.0%} (limit {LARGEST_RISE:.0%}): learn the codebook anew, with more codes or levels."
        )
    return False, f"The codebook fits the new items of block {last.block} as it fits unseen items of block 0: keep it."


def _held_out_error(quantizer: str, vectors: Vectors, level_sizes: tuple[int, ...], seed: int) -> float:
    order = np.random.default_rng(derive_seed(seed, "held out items")).permutation(len(vectors))
    num_held_out = int(HELD_OUT_SHARE * len(vectors))
    if not num_held_out:
        raise DataError(f"block 0 has {len(vectors)} items with a vector; holding some out takes at least 5.")
    kept: IntArray = np.sort(order[num_held_out:])
    fit = build_quantizer(quantizer).fit(vectors[kept], np.ones(len(kept)), level_sizes, seed)
    assert isinstance(fit.codebook, AdditiveCodebook), "the same quantizer as the workspace's"
    unseen = vectors[order[:num_held_out]]
    error = float(fit.codebook.squared_errors(unseen, fit.codebook.encode(unseen), len(level_sizes)).mean())
    if not error:
        raise DataError(
            "unseen items of block 0 lie exactly on codes, as where few vectors are distinct, so there is no error to "
            "compare that of later items with; a codebook with fewer codes has one."
        )
    return error
