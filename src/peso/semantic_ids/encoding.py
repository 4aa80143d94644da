"""From a workspace's items to unique semantic IDs, in the order in which a deployment would meet the items.

Encoder and codebook learn from the items of block 0 alone. Those get their codes first; then, block after block, later
items get the nearest free codes of the frozen codebook, and items that no event names come last. What an item's codes
are thus depends on nothing that happened after it appeared.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peso.data.dataset import Dataset, IntArray
from peso.data.storage import load_dataset
from peso.errors import ConfigError, WorkspaceError
from peso.files import atomic_directory, write_json
from peso.semantic_ids.added_items import FOLDER as ADDED_ITEMS
from peso.semantic_ids.assignment import check_capacity, make_unique
from peso.semantic_ids.catalogue import SemanticIds
from peso.semantic_ids.contents import read_workspace_items
from peso.semantic_ids.encoders.batches import encode_in_batches
from peso.semantic_ids.encoders.registry import EncoderRequest, build_encoder
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.item_tokenizer import FOLDER, ItemTokenizer
from peso.semantic_ids.matching import match_unique
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.base import Codebook
from peso.semantic_ids.quantizers.registry import build_quantizer

log = logging.getLogger(__name__)

VECTORS_FOLDER = "vectors"
RECORD = "encoding.json"
_MAX_LEVELS = 16
_FILES_OF_MODELS = ("*.safetensors", "base.json", "result.json")


@dataclass(frozen=True)
class EncodingRequest:
    """What to learn.

    Attributes:
        encoder: an `EncoderName`, or several joined by "+".
        quantizer: a `QuantizerName`.
        level_sizes: codes per level.
        seed: of everything random.
        model: folder or hub name of the encoder's model, where it has one.
        vectors: file of precomputed vectors, where the encoder reads one.
    """

    encoder: str
    quantizer: str
    level_sizes: tuple[int, ...]
    seed: int = 0
    model: str | None = None
    vectors: Path | None = None


@dataclass(frozen=True, eq=False)
class UniqueCodes:
    """Codes of every item, none twice.

    Attributes:
        codes: int64 [N, M].
        error_before: mean squared distance of latents to the codebook's own codes; None where there are no codewords.
        error_after: the same for the unique codes.
    """

    codes: IntArray
    error_before: float | None
    error_after: float | None


def encode_workspace(workspace: Path, request: EncodingRequest) -> Path:
    """Gives every item of a workspace a semantic ID.

    Args:
        workspace: filled with data; what it has of semantic IDs is replaced.
        request: what to learn.

    Returns:
        The record of what was done, `W/data/semantic_ids/encoding.json`.

    Raises:
        ConfigError: the request names something unknown or impossible.
        DataError: the items give the encoder nothing to learn from, or there are more items than codes.
        WorkspaceError: there is no data, or models of this workspace speak in its present codes.
    """
    dataset, asked = encoder_request(workspace, request)
    first_blocks, base, items = dataset.item_first_block, asked.fit_on, asked.items
    encoder = build_encoder(request.encoder, asked)
    vectors = encode_in_batches(encoder, items, workspace / VECTORS_FOLDER)
    quantizer = build_quantizer(request.quantizer)
    popularity = np.bincount(dataset.event_item[dataset.event_block == 0], minlength=dataset.num_items).astype(float)
    log.info("learning %s from %d items of block 0", request.quantizer, len(base))
    fit = quantizer.fit(vectors[base], popularity[base], request.level_sizes, request.seed)
    source_codes = fit.codebook.encode(vectors)
    source_codes[base] = fit.codes
    unique = unique_codes(fit.codebook, vectors, source_codes, first_blocks)
    semantic_ids = SemanticIds(unique.codes, source_codes, request.level_sizes)
    record = {
        "encoder": request.encoder,
        "quantizer": request.quantizer,
        "level_sizes": list(request.level_sizes),
        "seed": request.seed,
        "model": request.model,
        "num_items": dataset.num_items,
        "num_items_learned_from": len(base),
        "num_dimensions": vectors.shape[1],
        "num_items_without_vector": int((~vectors.any(axis=1)).sum()),
        "num_items_moved_to_a_free_code": semantic_ids.num_moved,
        "error_before": unique.error_before,
        "error_after": unique.error_after,
        "vectors_fingerprint": encoder.state().fingerprint,
    }
    folder = workspace / "data" / "semantic_ids"
    with atomic_directory(folder) as temporary:
        semantic_ids.save(temporary, dataset.item_ids)
        ItemTokenizer(encoder, fit.codebook).save(temporary / FOLDER)
        write_json(temporary / RECORD, record)
    return folder / RECORD


def encoder_request(workspace: Path, request: EncodingRequest) -> tuple[Dataset, EncoderRequest]:
    """The data, and what the encoder may look at, once all else that is asked for is found possible.

    Raises:
        ConfigError: the request names something unknown or impossible.
        DataError: there are more items than codes.
        WorkspaceError: there is no data, or models of this workspace speak in its present codes.
    """
    if not 1 <= len(request.level_sizes) <= _MAX_LEVELS or min(request.level_sizes) < 2:
        raise ConfigError(
            f"--levels {len(request.level_sizes)} and --codes {min(request.level_sizes, default=0)}: "
            f"give 1 to {_MAX_LEVELS} levels of at least 2 codes."
        )
    build_quantizer(request.quantizer)
    dataset = load_dataset(workspace / "data")
    check_capacity(dataset.num_items, request.level_sizes)
    refuse_under_models(workspace)
    items = read_workspace_items(workspace / "data", dataset).contents
    known = np.flatnonzero(dataset.item_first_block == 0)
    cache = workspace / VECTORS_FOLDER
    return dataset, EncoderRequest(dataset, items, known, request.model, request.vectors, request.seed, cache)


def refuse_under_models(workspace: Path) -> None:
    """Codes are a language that models have learned: they must not change under them.

    Raises:
        WorkspaceError: the workspace has bases, runs, or items that were added to its codes.
    """
    for name, what, is_there in (
        ("bases", "models", _holds_model),
        ("runs", "models", _holds_model),
        (ADDED_ITEMS, "items", Path.is_dir),
    ):
        folder = workspace / name
        if is_there(folder):
            raise WorkspaceError(
                f"{folder} holds {what} that speak in this workspace's present codes; "
                "import the data into a new workspace and encode the items there."
            )


def _holds_model(folder: Path) -> bool:
    """Whether anything below a folder of bases or runs has been trained; a failed run may leave empty folders."""
    entries = [entry for entry in folder.glob("*") if not entry.name.startswith(".")]
    return any(any(entry.rglob(pattern)) for entry in entries for pattern in _FILES_OF_MODELS)


def unique_codes(codebook: Codebook, vectors: Vectors, codes: IntArray, first_blocks: IntArray) -> UniqueCodes:
    """Unique codes, given to the items of one block after those of the blocks before it.

    Args:
        codebook: with codewords, the least distortion decides; without, the next free code.
        vectors: float32 [N, D].
        codes: int64 [N, M], rows may repeat.
        first_blocks: block in which each item occurs first, int64 [N].

    Raises:
        DataError: there are more items than codes.
    """
    if not isinstance(codebook, AdditiveCodebook):
        priority = np.lexsort((np.arange(len(codes)), first_blocks))
        return UniqueCodes(make_unique(codes, codebook.level_sizes, priority), None, None)
    unique = np.empty_like(codes)
    is_settled = np.zeros(len(codes), dtype=bool)
    errors = np.zeros(2)
    for block in np.unique(first_blocks).tolist():
        new = np.flatnonzero(first_blocks == block)
        match = match_unique(codebook, vectors[new], codes[new], unique[is_settled])
        unique[new] = match.codes
        is_settled[new] = True
        errors += len(new) * np.array([match.error_before, match.error_after])
    before, after = (errors / len(codes)).tolist()
    return UniqueCodes(unique, before, after)
