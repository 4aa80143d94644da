"""Writes the page of docs/results/engine from the JSON files that lie there."""

import argparse
import json
from pathlib import Path
from typing import Any

from peso.files import write_text

ONE_THREAD = "one_thread"

INTRODUCTION = """\
# Speed

Written by `make bench` (one: `.venv/bin/python -m benchmarks.NAME [--quick] [--json]`). Both sides of a ratio
are measured in one process, in turns, and the ratio is the median over turns. The data are the Video Games release
where it is at hand, a simulated world elsewhere; models are untrained (speed does not depend on the weights).
The rivals are in [`benchmarks/rivals.py`](../../../benchmarks/rivals.py): the Trainer of transformers with one padded
example per target at its best batch size, and `generate` with ten beams and a trie as `prefix_allowed_tokens_fn`:
*alone* one user at a time with the adapter beside the weights, as the released code does it, *alone merged* with the
adapter in the weights, *batched* that at its best batch size.
"""


def main() -> None:
    """Reads every record and writes README.md beside them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    write_text(folder / "README.md", page(_records(folder), _records(folder / ONE_THREAD)))


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]


def page(records: list[dict[str, Any]], of_one_thread: list[dict[str, Any]]) -> str:
    """One table of all targets, how much is done per second, and where it was measured.

    Args:
        records: of all benchmarks.
        of_one_thread: of those of training and decoding, with one thread.
    """
    machines = list(dict.fromkeys(json.dumps(_without_load(record["machine"])) for record in records))
    versions = dict.fromkeys(json.dumps(record["versions"]) for record in records)
    lines = [INTRODUCTION, "| benchmark | what | measured | target | met | machine |", "|---|---|---|---|---|---|"]
    for record in records:
        where = machines.index(json.dumps(_without_load(record["machine"]))) + 1
        for name, target in record["targets"].items():
            sign = "≥" if target["direction"] == "at_least" else "≤"
            wanted = f"{sign} {target['target']:g} {target['unit']}".rstrip()
            is_number = target["value"] is not None
            measured = f"{target['value']:.3g} {target['unit']}".rstrip() if is_number else "not a number"
            words = name.replace("_", " ")
            lines.append(
                f"| [{record['benchmark']}]({record['benchmark']}.json) | {words} | {measured} | {wanted} "
                f"| {'yes' if target['met'] else '**no**'} | {where} |"
            )
        if record["details"].get("was_run") is False:
            lines.append(f"| {record['benchmark']} | {record['details']['reason']} | - | - | - | {where} |")
    lines += ["", "| per second | threads | peso | the library at its best batch size |", "|---|---|---|---|"]
    lines += [row for record in [*records, *of_one_thread] for row in _rates(record)]
    lines += ["", *(f"{number}. Machine: `{machine}`" for number, machine in enumerate(machines, start=1))]
    return "\n".join([*lines, "", *(f"Versions: `{one}`" for one in versions), ""])


def _rates(record: dict[str, Any]) -> list[str]:
    """Rows of what a benchmark of training or decoding did per second."""
    details, threads = record["details"], record["machine"]["threads"]
    if record["benchmark"] == "decode":
        by_side = details["users_per_second"]
        return [f"| users, ten beams | {threads} | {by_side['peso']:,.0f} | {by_side['generate_batched']:,.0f} |"]
    if record["benchmark"] != "train":
        return []
    by_template = {template: details[template]["targets_per_second"] for template in ("sid", "instruct")}
    return [
        f"| targets trained, `{template}` | {threads} | {by_side['peso']:,.0f} | {by_side['trainer']:,.0f} |"
        for template, by_side in by_template.items()
    ]


def _without_load(machine: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in machine.items() if key != "load_average"}


if __name__ == "__main__":
    main()
