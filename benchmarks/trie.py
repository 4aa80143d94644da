"""What the constraint to real items costs, from ten thousand to ten million items of four codes out of 256.

Overhead is the time of choosing children with the trie, all levels together, minus the time of the same top-k over all
beams and codes without one, as a share of the time to decode the batch. All three are measured by turns, and the share
is each turn's own, so that a machine whose speed drifts does not compare its quick minutes with its slow ones. It is
negative where the trie is quicker, as sparse levels leave few children to compare.
"""

import resource
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.constraint import compare_with_decoding, overhead_of
from benchmarks.harness import Outcome, Target, compare, run_benchmark, seconds_of
from peso.config import BackboneConfig
from peso.decoding.beam import beam_search
from peso.decoding.body import Body
from peso.decoding.code_scores import CodeScores
from peso.decoding.quick_body import quick_body
from peso.decoding.trie import Trie
from peso.decoding.trie_file import ITEM_COLUMN, build_trie_from_parquet, level_column, load_trie, save_trie
from peso.lm.backbone import build_backbone
from peso.lm.device import make_ready
from peso.semantic_ids.catalogue import code_token

NUM_LEVELS, NUM_CODES = 4, 256
NUM_USERS, BEAM_WIDTH = 64, 10
MEAN_HISTORY_TOKENS = 40
QUICK_SIZES, FULL_SIZES = (10**4, 10**5, 10**6), (10**4, 10**5, 10**6, 10**7)
TURNS = 7
MAX_BYTES_PER_ITEM, MAX_GROWTH, MAX_OVERHEAD, MAX_BUILD_SECONDS = 40, 0.05, 0.01, 10


@dataclass(frozen=True, eq=False)
class Batch:
    """An untrained model and histories to decode; speed does not depend on what the weights are."""

    body: Body
    code_scores: CodeScores
    prompts: Tensor
    lengths: Tensor

    def decode(self, trie: Trie) -> None:
        """Finds every user's best items."""
        beam_search(self.body, self.prompts, self.lengths, trie, self.code_scores, BEAM_WIDTH, BEAM_WIDTH)


def main() -> None:
    """Measures and prints."""
    run_benchmark("trie", __doc__, measure)


def measure(quick: bool) -> Outcome:
    """Builds, loads and decodes with a catalogue of every size."""
    batch = _batch()
    sizes = QUICK_SIZES if quick else FULL_SIZES
    tries: dict[int, Trie] = {}
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            tries[size], details[f"{size:.0e}"] = _built_and_loaded(size, Path(name))
        decoded = compare(
            {f"{size:.0e}": partial(seconds_of, partial(batch.decode, tries[size])) for size in sizes}, TURNS
        )
        for size in sizes:
            facts = details[f"{size:.0e}"]
            facts["bytes_per_item_in_memory"] = tries[size].num_resident_bytes / size
            decode = partial(seconds_of, partial(batch.decode, tries[size]))
            steps = compare_with_decoding(decode, tries[size], NUM_USERS, BEAM_WIDTH, NUM_CODES, 3 * TURNS)
            facts["decode_seconds"] = steps.median("decode")
            for side in ("with_trie", "without_trie"):
                facts[f"choosing_seconds_{side}"] = steps.median(side)
            facts["overhead"] = overhead_of(steps)
    smallest, largest = (f"{size:.0e}" for size in (sizes[0], sizes[-1]))
    every = list(details.values())
    return Outcome(
        {
            f"decode_growth_{smallest}_to_{largest}": Target(
                decoded.ratio(largest, smallest) - 1, MAX_GROWTH, "at_most"
            ),
            "bytes_per_item": Target(max(facts["bytes_per_item"] for facts in every), MAX_BYTES_PER_ITEM, "at_most"),
            "overhead": Target(max(facts["overhead"] for facts in every), MAX_OVERHEAD, "at_most"),
            f"build_seconds_{largest}": Target(every[-1]["build_seconds"], MAX_BUILD_SECONDS, "at_most", "s"),
        },
        details | {"decode": decoded.as_json()},
    )


def _batch() -> Batch:
    model, tokenizer = build_backbone(BackboneConfig(), (NUM_CODES,) * NUM_LEVELS, seed=0)
    model = make_ready(model).eval()
    level_token_ids = [
        torch.tensor(tokenizer.convert_tokens_to_ids([code_token(level, code) for code in range(NUM_CODES)]))
        for level in range(NUM_LEVELS)
    ]
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(MEAN_HISTORY_TOKENS // 2, MEAN_HISTORY_TOKENS * 3 // 2, (NUM_USERS,), generator=generator)
    prompts = torch.randint(len(tokenizer), (NUM_USERS, int(lengths.max())), generator=generator)
    return Batch(quick_body(model.eval()), CodeScores(model, level_token_ids, "level"), prompts, lengths)


def _built_and_loaded(size: int, folder: Path) -> tuple[Trie, dict[str, Any]]:
    table, file = folder / "codes.parquet", folder / f"{size}.safetensors"
    codes = skewed_codes(size, np.random.default_rng(0))
    columns = {level_column(level): codes[level] for level in range(NUM_LEVELS)}
    pl.DataFrame({ITEM_COLUMN: np.arange(size, dtype=np.int32)} | columns).write_parquet(table)
    built: list[Trie] = []
    build_seconds = seconds_of(lambda: built.append(build_trie_from_parquet(table, NUM_LEVELS)))
    save_trie(built.pop(), file)
    loaded: list[Trie] = []
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    load_seconds = seconds_of(lambda: loaded.append(load_trie(file)))
    trie = loaded[0]
    return trie, {
        "build_seconds": build_seconds,
        "load_seconds": load_seconds,
        "load_peak_growth_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before,
        "bytes_per_item": trie.num_bytes / trie.num_items,
        "nodes": [len(level_codes) for level_codes in trie.codes],
        "max_children": list(trie.max_children),
        "levels_with_bitmask": [level for level, mask in enumerate(trie.bitmasks) if mask.numel()],
    }


def skewed_codes(size: int, generator: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Distinct codes, uint8 [size] per level: under every prefix some codes are common and most are rare."""
    weights = 1 / (np.arange(NUM_CODES) + 30.0)
    common_first = np.searchsorted(np.cumsum(weights) / weights.sum(), (np.arange(1 << 16) + 0.5) / (1 << 16))
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < size:
        prefix = np.zeros(size, dtype=np.int64)
        for _ in range(NUM_LEVELS):
            rank = common_first[generator.integers(1 << 16, size=size, dtype=np.uint16)]
            # Which codes are the common ones differs from prefix to prefix.
            prefix = prefix * NUM_CODES + (rank * 167 + prefix * 89) % NUM_CODES
        keys = np.unique(np.concatenate([keys, prefix]))
    keys = generator.permutation(keys)[:size]
    return [(keys >> 8 * (NUM_LEVELS - 1 - level)).astype(np.uint8) for level in range(NUM_LEVELS)]


if __name__ == "__main__":
    main()
