"""What search error costs: the same model decoded with more and more beams, and exactly.

Needs finished runs, each in its workspace; one with a memory is decoded with it. Every width decodes the same test
targets; differences to the exact search are paired over users.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine
from peso.config import make_config
from peso.data.dataset import IntArray
from peso.data.examples import history_starts, items_taken_before, targets_of_block
from peso.decoding.beam import BeamResult
from peso.decoding.recommend import Recommender
from peso.decoding.trie import build_trie
from peso.experiments.markdown import markdown_table
from peso.files import write_json, write_text
from peso.training.base import load_state, read_base
from peso.training.materials import load_materials
from peso.training.measure import memory_after

WIDTHS = (10, 20, 50, 100, 500)
LENGTH = 10


def main() -> None:
    """Decodes, compares, writes `beams.md` and `beams.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs, W/runs/NAME")
    parser.add_argument("--users", type=int, default=1000, help="test targets per block, at most")
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    record = {"runs": [study(run, arguments.users) for run in arguments.runs], "machine": machine()}
    write_json(arguments.results / "beams.json", record)
    write_text(arguments.results / "beams.md", page(record))


def study(folder: Path, users: int) -> dict[str, Any]:
    """Ranks of the true item under every width, over blocks 1 and later."""
    workspace = folder.parent.parent
    materials = load_materials(workspace, make_config(folder / "config.toml"))
    dataset, config = materials.dataset, materials.config
    base = read_base(materials, workspace / "bases")
    ranks: dict[str, list[IntArray]] = {}
    certain: dict[str, list[np.ndarray]] = {}
    found: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, float] = {}
    for block in range(1, dataset.num_blocks):
        _, reader = load_state(materials, base, folder / "adapters" / f"block_{block}")
        targets = targets_of_block(dataset, block, "test")
        targets = np.sort(np.random.default_rng(block).permutation(targets)[:users])
        starts = history_starts(dataset, targets, config.max_history)
        prompts = [reader.builder.prompt(dataset.event_item[s:t]) for s, t in zip(starts, targets, strict=True)]
        trie = build_trie(materials.semantic_ids.codes, materials.list_rules.allowed(dataset, block))
        excluded = materials.list_rules.excluded(dataset, targets)
        memory = memory_after(materials, reader, block)
        remembered = None if memory is None else memory.recall(items_taken_before(dataset, targets))
        results: dict[str, BeamResult] = {}
        for name in ("exact", *map(str, WIDTHS)):
            width = WIDTHS[-1] if name == "exact" else int(name)
            settings = config.decoding.model_copy(update={"num_recommendations": LENGTH, "beam_width": width})
            recommender = Recommender(reader.model, reader.builder.vocabulary, settings)
            search = recommender.search_exactly if name == "exact" else recommender.search
            started = time.perf_counter()
            results[name] = search(prompts, trie, excluded, remembered)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
        truth = dataset.event_item[targets]
        exact = results["exact"].items.numpy()
        for name, result in results.items():
            items = result.items.numpy()
            hit = items == truth[:, None]
            ranks.setdefault(name, []).append(np.where(hit.any(1), hit.argmax(1) + 1, 0))
            certain.setdefault(name, []).append(result.is_certain.numpy())
            found.setdefault(name, []).append((items[:, :, None] == exact[:, None, :]).any(2).mean(1))
    num_targets = sum(map(len, ranks["exact"]))
    exact_gain = _gain(np.concatenate(ranks["exact"]))
    rows = []
    for name in (*map(str, WIDTHS), "exact"):
        gain = _gain(np.concatenate(ranks[name]))
        difference = gain - exact_gain
        rows.append(
            {
                "beams": name,
                "ndcg@10": float(gain.mean()),
                "hit@10": float((gain > 0).mean()),
                "ndcg@10_minus_exact": float(difference.mean()),
                "standard_error": float(difference.std() / np.sqrt(num_targets)),
                "share_of_exact_list": float(np.concatenate(found[name]).mean()),
                "share_certain": float(np.concatenate(certain[name]).mean()),
                "users_per_second": num_targets / seconds[name],
            }
        )
    return {
        "workspace": workspace.name,
        "method": config.method,
        "memory": config.memory.use,
        "num_targets": num_targets,
        "lists": materials.list_rules.name,
        "rows": rows,
    }


def _gain(ranks: IntArray) -> np.ndarray:
    """NDCG of a single true item at each rank; 0 where it is not listed (rank 0)."""
    return np.where(ranks > 0, 1 / np.log2(np.maximum(ranks, 1) + 1), 0.0)


def page(record: dict[str, Any]) -> str:
    """A table per run in Markdown."""
    lines = [
        "# What search error costs",
        "",
        "Written by `python -m benchmarks.beams`. *exact* widens each user's beam until its bound proves the list to",
        "be the true one; *share certain* is how many lists of a fixed width the bound proves. Differences are paired.",
        "",
    ]
    for run in record["runs"]:
        beside = "with its memory" if run["memory"] else "without a memory"
        lines += [f"## {run['workspace']}, {run['method']} {beside}", ""]
        lines += [f"{run['num_targets']:,} test targets; lists: {run['lists']}.", ""]
        columns = [column.replace("_", " ") for column in run["rows"][0]]
        lines += [*markdown_table(columns, [[_cell(value) for value in row.values()] for row in run["rows"]]), ""]
    return "\n".join([*lines, f"Machine: `{json.dumps(record['machine'])}`", ""])


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4f}" if value < 10 else f"{value:.0f}"


if __name__ == "__main__":
    main()
