"""The study behind docs/results: every method on the authors' released data, beside rivals without a network.

Needs the release under PESO_SHARED_DATA (default ../shared/data). Finished runs are kept, so it can be interrupted.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from peso.baselines.run import run_baselines
from peso.config import make_config
from peso.data.list_rules import ListRules
from peso.data.sources.peso_release import read_peso_release
from peso.data.storage import load_dataset, save_dataset
from peso.evaluation.summary import mean_over_blocks
from peso.experiments.comparisons import make_claims
from peso.experiments.markdown import cell_text, markdown_table
from peso.experiments.plots import metric_per_block
from peso.experiments.report import write_report
from peso.experiments.results import Variant, group_variants, load_results
from peso.files import write_json, write_text
from peso.semantic_ids.catalogue import build_semantic_ids
from peso.training.stream import run_stream
from peso.types import CatalogueName, NextBlockDetail, RepeatsName

RELEASES = {
    "video-games": "Video_Games_cl_0.6_0_5_3_0",
    "cds": "CDs_and_Vinyl_cl_0.6_0_5_3_0",
}
METHODS = tuple((method, with_memory) for with_memory in (False, True) for method in ("frozen", "single", "peso"))
"""Method, and whether a memory of counts is beside it."""
LISTS: dict[str, tuple[CatalogueName, RepeatsName]] = {
    "released": ("all", "allowed"),
    "known": ("known", "excluded"),
}
TARGET_GROUPS, GROUP_METRICS = ("known_item", "new_item"), ("ndcg@10", "log_likelihood")
METRICS = ("hit@1", "hit@5", "hit@10", "ndcg@5", "ndcg@10", "mrr@10", "log_likelihood")


def main() -> None:
    """Runs what is missing and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--release", choices=sorted(RELEASES), action="append", help="default: all")
    parser.add_argument("--workspaces", type=Path, default=Path("workspaces"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="where tables are written")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lists", choices=sorted(LISTS), action="append", help="default: every kind")
    arguments = parser.parse_args()
    shared = Path(os.environ.get("PESO_SHARED_DATA", "../shared/data")) / "peso-release"
    if not shared.is_dir():
        sys.exit(f"{shared} does not exist; set PESO_SHARED_DATA to the folder that holds peso-release.")
    for release in arguments.release or sorted(RELEASES):
        workspace = arguments.workspaces / release
        if not (workspace / "data").exists():
            _import(shared / RELEASES[release], workspace)
        dataset = load_dataset(workspace / "data")
        for lists in arguments.lists or LISTS:
            # What a list may name does not change a likelihood, so one kind of lists is enough for the next block.
            next_block: NextBlockDetail = "log_likelihood" if lists == "released" else "off"
            catalogue, repeats = LISTS[lists]
            run_baselines(dataset, workspace, ListRules.choose(dataset, catalogue, repeats))
            for seed in range(arguments.seeds):
                for method, with_memory in METHODS:
                    overrides = {
                        "method": method,
                        "seed": seed,
                        "decoding": {"catalogue": catalogue, "repeats": repeats},
                        "memory": {"use": with_memory},
                        "evaluation": {"next_block": next_block},
                    }
                    run_stream(workspace, make_config(None, overrides), resume=True)
        _write_tables(release, workspace, arguments.results)
        write_report(workspace)


def _import(folder: Path, workspace: Path) -> None:
    imported = read_peso_release(folder)
    assert imported.source_codes is not None
    semantic_ids = build_semantic_ids(imported.dataset, imported.source_codes, imported.level_sizes)
    semantic_ids.save(workspace / "data" / "semantic_ids", imported.dataset.item_ids)
    save_dataset(imported.dataset, workspace / "data")


def _write_tables(release: str, workspace: Path, results: Path) -> None:
    records = load_results(workspace)
    sections: dict[str, Any] = {}
    lines = [
        f"# {release}",
        "",
        "Written by `python -m benchmarks.releases`; means over blocks 1 to 4 and over seeds.",
        "",
    ]
    names = sorted({record.result["lists"] for record in records if record.result["base"]})
    for name in names:
        variants = group_variants([record for record in records if record.result["lists"] == name])
        if not any(not variant.is_rival for variant in variants):
            continue
        rows = [_row(variant) for variant in variants]
        blocks = variants[0].runs[0].result["blocks"]
        claims = [claim.sentence + f" ({claim.protocol}, {claim.comparison.metric})" for claim in make_claims(variants)]
        sections[name] = {"methods": rows, "claims": claims}
        columns = [*METRICS, "next_block_log_likelihood", "update_seconds", "test_seconds", "peak_gb"]
        lines += [f"## Lists: {name}", ""]
        table = [[row["method"], row["seeds"], *(row[column] for column in columns)] for row in rows]
        lines += markdown_table(["method", "seeds", *columns], table)
        lines += ["", "NDCG@10 per block (mean over seeds) and per seed:", ""]
        table = [
            [row["method"], *row["ndcg@10_per_block"], ", ".join(map(cell_text, row["ndcg@10_per_seed"]))]
            for row in rows
        ]
        lines += markdown_table(["method", "block 1", "2", "3", "4", "seeds"], table)
        num_targets = [sum(block["groups"][group]["num_targets"] for block in blocks) for group in TARGET_GROUPS]
        lines += ["", "By target: {} items that an earlier event names, {} that none does:".format(*num_targets), ""]
        headings = [f"{metric}, {group.replace('_', ' ')}" for group in TARGET_GROUPS for metric in GROUP_METRICS]
        lines += markdown_table(["method", *headings], [[row["method"], *row["by_target"]] for row in rows])
        lines += ["", *[f"- {claim}" for claim in claims], ""]
    models = [record.result for record in records if record.result["base"]]
    checks = {
        "targets_per_block": [block["num_targets"] for block in models[0]["blocks"]],
        "invalid_items": sum(result["invalid_items"] for result in models),
        "duplicate_items": sum(result["duplicate_items"] for result in models),
        "base_seconds": {result["base"]["id"]: round(result["base"]["seconds"]) for result in models},
    }
    lines += ["## Checks", "", *[f"- {name}: {value}" for name, value in checks.items()], ""]
    facts = {"versions": models[0]["versions"], "data_fingerprint": models[0]["data_fingerprint"]}
    shown = group_variants([record for record in records if record.result["lists"] == names[0]])
    picture = metric_per_block(shown, "ndcg@10", "in_block", f"NDCG@10 on {release}; lists: {names[0]}")
    write_text(results / f"{release}.svg", picture)
    write_json(results / f"{release}.json", sections | {"checks": checks} | facts | {"config": models[-1]["config"]})
    write_text(results / f"{release}.md", "\n".join(lines))


def _row(variant: Variant) -> dict[str, Any]:
    results = [run.result for run in variant.runs]
    num_blocks = len(results[0]["blocks"])

    def over_blocks(key: str) -> float:
        return sum(block[key] for result in results for block in result["blocks"]) / len(results)

    return {
        "method": variant.name,
        "seeds": "-" if variant.is_rival else len(results),
        **{metric: variant.mean(metric) for metric in METRICS},
        "next_block_log_likelihood": variant.mean("log_likelihood", "mean_next_block"),
        "update_seconds": round(over_blocks("train_seconds")),
        "test_seconds": round(over_blocks("test_seconds")),
        "peak_gb": None if variant.is_rival else round(max(r["peak_rss_bytes"] for r in results) / 1e9, 2),
        "ndcg@10_per_block": [
            sum(result["blocks"][number]["ndcg@10"] for result in results) / len(results)
            for number in range(num_blocks)
        ],
        "by_target": [_of_group(results, group, metric) for group in TARGET_GROUPS for metric in GROUP_METRICS],
        "ndcg@10_per_seed": [result["mean"]["ndcg@10"] for result in results],
    }


def _of_group(results: list[dict[str, Any]], group: str, metric: str) -> float | None:
    """Mean over blocks and seeds of a metric of one group of targets; None where it is not measured."""
    groups = [[block["groups"][group] for block in result["blocks"]] for result in results]
    values = [value for blocks in groups if (value := mean_over_blocks(blocks)[metric]) is not None]
    return sum(values) / len(values) if values else None


if __name__ == "__main__":
    main()
