"""Writes the Markdown page beside the JSON of `benchmarks.semantic_ids`."""

import argparse
from pathlib import Path
from typing import Any

from peso.experiments.markdown import Cell, markdown_table
from peso.files import read_json, write_text

_COLUMNS = {
    "seconds": "seconds",
    "cpu_seconds": "CPU seconds",
    "share_used_1": "level 1 used",
    "perplexity_1": "perplexity",
    "num_moved": "moved",
    "distortion_added": "distortion added",
    "sharing_1_by_chance": "by chance",
    "meaning_sharing_1": "meaning, 1 code",
    "meaning_sharing_2": "meaning, 2 codes",
    "users_sharing_1": "users, 1 code",
    "users_sharing_2": "users, 2 codes",
    "brand_purity_1": "brand purity",
    "brand_purity_1_by_chance": "purity by chance",
}


def main() -> None:
    """Reads the JSON named on the command line and writes the page beside it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.semantic_ids_page", description=__doc__)
    parser.add_argument("json", type=Path, help="what `python -m benchmarks.semantic_ids --output` wrote")
    path: Path = parser.parse_args().json
    write_text(path.with_suffix(".md"), page_of(read_json(path, "benchmark")))


def page_of(record: dict[str, Any]) -> str:
    """The page.

    Args:
        record: a benchmark's JSON.
    """
    rows: list[list[Cell]] = [
        [name, *(row.get(key) for key in _COLUMNS)] for name, row in record["details"]["tokenizers"].items()
    ]
    targets: list[list[Cell]] = [
        [name, round(target["value"], 3), target["target"], "yes" if target["met"] else "no"]
        for name, target in record["targets"].items()
    ]
    machine = record["machine"]
    lines = [
        "# Tokenizers on real titles",
        "",
        f"{record['details']['num_items']:,} items of Amazon Industrial & Scientific (titles alone), four levels of",
        "256 codes. Written by `python -m benchmarks.semantic_ids --output docs/results/semantic_ids.json` and",
        "`python -m benchmarks.semantic_ids_page docs/results/semantic_ids.json`.",
        "",
        *markdown_table(("target", "measured", "wanted", "met"), targets),
        "",
        *markdown_table(("encoder, quantizer", *_COLUMNS.values()), rows),
        "",
        "*seconds*: from titles to unique codes, on a machine that others used at the same time; a model's",
        "vectors are read from the cache. *moved*: items that shared a code and were given another;",
        "*distortion added*: by how much that raised the mean squared distance to the codes. *meaning*,",
        "*users*: of an item's ten nearest neighbours, how many share its first code or its first two;",
        "nearest by MiniLM, or by what users took together in the histories. The sentence and collaborative",
        "encoders are thus judged by their own space in one of the two. *by chance*: how many of all pairs",
        "share the first code. *brand purity*: items that have the commonest brand of their first code. The",
        "released codes have three levels.",
        "",
        f"Machine: {machine['cpu']}, {machine['threads']} thread, {machine['cpus']} CPUs,",
        f"load {machine['load_average']} at the end.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
