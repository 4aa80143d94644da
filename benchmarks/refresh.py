"""What a refreshed codebook does to recommendations: the same model goes on under old codes and under new ones.

In a workspace whose items peso encoded, a run is trained for every seed. After one of its blocks the codebook learns on
with different shares of moved items (share 0: every code stays, the control); the run's version is carried over, learns
the blocks that follow, and is measured on their test targets. Finished runs are kept.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from peso.config import RunConfig, make_config
from peso.data.storage import load_dataset
from peso.experiments.markdown import markdown_table
from peso.experiments.results import RunRecord, Variant
from peso.files import read_json, write_json, write_text
from peso.semantic_ids.encoding import RECORD
from peso.semantic_ids.refreshing import refresh_workspace
from peso.studies.claims import run_tests, sentences
from peso.studies.measures import NDCG, RANKS, THIS_BLOCK, spread_of, spread_text
from peso.studies.plan import Pair
from peso.training.carrying import carry_over, find_version
from peso.training.finished import RESULT
from peso.training.stream import run_stream

SHARES = (0.0, 0.05, 0.2, 1.0)
MEASURES = (*RANKS, THIS_BLOCK)


def main() -> None:
    """Runs what is missing and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workspace", type=Path, required=True, help="with data and codes of peso")
    parser.add_argument("--after", type=int, help="block after which the codebook learns on; default: the last but one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    workspace: Path = arguments.workspace
    after = load_dataset(workspace / "data").num_blocks - 2 if arguments.after is None else arguments.after
    runs: dict[float, list[RunRecord]] = {share: [] for share in SHARES}
    facts: dict[float, dict[str, Any]] = {}
    for seed in range(arguments.seeds):
        config = make_config(arguments.config, {"seed": seed, "memory": {"use": False}})
        run_stream(workspace, config, resume=True)
        for share in SHARES:
            folder, record = _go_on(workspace, config, after, share)
            runs[share].append(RunRecord(folder, read_json(folder / RESULT, "result")))
            facts[share] = record["refresh"]
    _write(arguments.results / f"refresh-{workspace.name}", runs, facts)


def _go_on(workspace: Path, config: RunConfig, after: int, share: float) -> tuple[Path, dict[str, Any]]:
    target = workspace / "worlds" / f"refreshed-{after}-{share:g}-seed{config.seed}"
    if not (target / "bases").exists():
        shutil.rmtree(target, ignore_errors=True)
        refresh_workspace(workspace, target, after, share)
        run = next(path.parent for path in (workspace / "runs").glob("*/config.toml") if make_config(path) == config)
        carry_over(find_version(workspace, run.name, after), target)
    record: dict[str, Any] = read_json(target / "data" / "semantic_ids" / RECORD, "record of the encoding")
    return run_stream(target, config, resume=True), record


def _write(path: Path, runs: dict[float, list[RunRecord]], facts: dict[float, dict[str, Any]]) -> None:
    variants = {
        f"{share:.0%}": Variant(f"{share:.0%}", own[0].result["method"], own[0].result["lists"], own)
        for share, own in runs.items()
    }
    control = next(iter(variants))
    pairs = [Pair(name, control, "against the codes as they were") for name in variants if name != control]
    tests = run_tests(variants, pairs, [NDCG, THIS_BLOCK])
    rows = []
    for found, (name, variant) in zip(facts.values(), variants.items(), strict=True):
        cells = [spread_text(*spread_of(variant, measure.key)) for measure in MEASURES]
        rows.append([name, found["num_moved"], found["num_left"], found["error_after"] / found["error_before"], *cells])
    first = next(iter(facts.values()))
    result = next(iter(runs.values()))[0].result
    columns = ["allowed share", "moved", "wrong and stayed", "error / before", *(measure.label for measure in MEASURES)]
    command = f"python -m benchmarks.refresh --workspace {path.name.removeprefix('refresh-')} --seeds {len(runs[0.0])}"
    lines = [
        f"# Refreshed codes: {result['dataset']['source'].split(',')[0]}",
        "",
        f"Written by `{command}`. The codebook learned on after block {first['last_block']} from "
        f"{first['num_items']:,} items; {first['num_later']:,} came later. Method {result['method']} without memory; "
        "means over the blocks that followed, ± the standard deviation between seeds.",
        "",
        *markdown_table(columns, rows),
        "",
        *sentences(tests),
        "",
    ]
    write_text(path.with_suffix(".md"), "\n".join(lines))
    record = {
        "shares": [
            {"share": share, "refresh": facts[share], "runs": [run.result for run in runs[share]]} for share in runs
        ],
        "tests": [test.as_json() for test in tests],
    }
    for entry in record["shares"]:
        for run in entry["runs"]:
            for key in ("training", "movement", "strengths"):
                run.pop(key)
    write_json(path.with_suffix(".json"), record)


if __name__ == "__main__":
    main()
