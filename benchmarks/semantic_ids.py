"""How long it takes to give 3,686 real titles semantic IDs, and how good the codes of every tokenizer are.

Every tokenizer is judged in two spaces that are not its own: neighbours by meaning (MiniLM, where its package is
installed, else TF-IDF) and neighbours by what users took (collaborative vectors of block 0).
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.harness import Outcome, Target, run_benchmark
from benchmarks.titles import Titles, load_titles
from peso.data.dataset import IntArray
from peso.data.storage import save_dataset
from peso.files import read_json
from peso.semantic_ids.catalogue import load_semantic_ids
from peso.semantic_ids.encoders.base import ItemContents
from peso.semantic_ids.encoders.batches import encode_in_batches
from peso.semantic_ids.encoders.registry import EncoderRequest, build_encoder
from peso.semantic_ids.encoders.sentences import packaged_model
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.quality import measure_levels
from peso.types import QuantizerName

LEVEL_SIZES = (256, 256, 256, 256)
MAX_SECONDS = {"rq-kmeans": 20.0, "rq-vae": 180.0}
MIN_SHARE_USED = 0.9
TEXTS, TOGETHER = "tfidf", "tfidf+collaborative"


@dataclass(frozen=True, eq=False)
class Spaces:
    """Where tokenizers are judged: vectors by meaning and, of items that block 0 holds, by users."""

    meaning: Vectors
    users: Vectors
    known: IntArray


def main() -> None:
    """Measures and prints."""
    run_benchmark("semantic_ids", __doc__, measure)


def measure(quick: bool) -> Outcome:
    """Encodes with every quantizer, and with every encoder; quick: residual k-means of TF-IDF alone."""
    titles = load_titles()
    model = None if quick else packaged_model()
    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name)
        save_dataset(titles.dataset, workspace / "data")
        spaces = _spaces(titles, model, workspace / "vectors")
        pairs = [(TEXTS, quantizer) for quantizer in (["rq-kmeans"] if quick else _installed())]
        if not quick:
            pairs += [("collaborative", "rq-kmeans"), (TOGETHER, "rq-kmeans")]
        if model is not None:
            pairs += [("sentences", "rq-kmeans"), ("sentences", "rq-vae"), ("sentences+collaborative", "rq-kmeans")]
        rows = {
            f"{encoder}, {quantizer}": _row(workspace, encoder, quantizer, model, spaces, titles)
            for encoder, quantizer in pairs
        }
    if titles.released_codes is not None:
        codes = titles.released_codes
        rows["released with MiniOneRec"] = _quality(codes, (256,) * codes.shape[1], spaces, titles) | {
            "num_moved": len(codes) - len(np.unique(codes, axis=0))
        }
    targets: dict[str, Target] = {}
    for quantizer, most in MAX_SECONDS.items():
        row = rows.get(f"{TEXTS}, {quantizer}")
        if row is not None:
            targets[f"{quantizer}_seconds"] = Target(row["seconds"], most, "at_most", "s")
            targets[f"{quantizer}_level_1_used"] = Target(row["share_used_1"], MIN_SHARE_USED)
            targets[f"{quantizer}_collisions"] = Target(row["collisions"], 0, "at_most")
    return Outcome(targets, {"num_items": titles.dataset.num_items, "tokenizers": rows})


def _installed() -> list[str]:
    names = list(get_args(QuantizerName))
    return names if find_spec("vector_quantize_pytorch") else [name for name in names if name != "fsq"]


def _spaces(titles: Titles, model: str | None, folder: Path) -> Spaces:
    dataset = titles.dataset
    items = ItemContents(dataset.item_ids, dataset.titles)
    known = np.flatnonzero(dataset.item_first_block == 0)
    request = EncoderRequest(dataset, items, known, model, None, 0)
    by_users = build_encoder("collaborative", EncoderRequest(dataset, items, known, None, None, 0)).encode(items)
    by_meaning = build_encoder("sentences" if model else TEXTS, request)
    is_linked = by_users.any(axis=1)
    return Spaces(encode_in_batches(by_meaning, items, folder), by_users[is_linked], np.flatnonzero(is_linked))


def _row(
    workspace: Path, encoder: str, quantizer: str, model: str | None, spaces: Spaces, titles: Titles
) -> dict[str, Any]:
    request = EncodingRequest(
        encoder, quantizer, LEVEL_SIZES, model=model if "sentences" in encoder.split("+") else None
    )
    started, started_cpu = time.perf_counter(), time.process_time()
    record = read_json(encode_workspace(workspace, request), "record of the encoding")
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    ids = load_semantic_ids(workspace / "data" / "semantic_ids", titles.dataset.item_ids)
    before, after = record["error_before"], record["error_after"]
    return _quality(ids.codes, LEVEL_SIZES, spaces, titles) | {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "num_moved": ids.num_moved,
        "distortion_added": after / before - 1 if before else None,
        "collisions": ids.num_items - len(np.unique(ids.codes, axis=0)),
    }


def _quality(codes: IntArray, level_sizes: Sequence[int], spaces: Spaces, titles: Titles) -> dict[str, Any]:
    meaning = measure_levels(spaces.meaning, codes, level_sizes, None, titles.brands)
    users = measure_levels(spaces.users, codes[spaces.known], level_sizes)
    first, second = meaning[0], meaning[1]
    return {
        "share_used_1": first.num_used / first.num_codes,
        "perplexity_1": first.perplexity,
        "num_prefixes_2": second.num_prefixes,
        "sharing_1_by_chance": first.neighbours_by_chance,
        "meaning_sharing_1": first.neighbours_sharing,
        "meaning_sharing_2": second.neighbours_sharing,
        "users_sharing_1": users[0].neighbours_sharing,
        "users_sharing_2": users[1].neighbours_sharing,
        "brand_purity_1": first.purity,
        "brand_purity_1_by_chance": first.purity_by_chance,
    }


if __name__ == "__main__":
    main()
