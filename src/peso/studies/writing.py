"""A study's files: JSON with every figure, Markdown for people, SVG for the eye."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peso.config import RunConfig
from peso.experiments.markdown import markdown_table
from peso.experiments.results import Variant
from peso.files import write_json, write_text
from peso.studies.claims import sentences
from peso.studies.findings import Findings, Study
from peso.studies.measures import run_numbers, spread
from peso.studies.running import Outcome


def study_record(
    study: Study, outcome: Outcome, findings: Findings, config: RunConfig, seeds: Sequence[int], command: str
) -> dict[str, Any]:
    """The content of the study's JSON file.

    Args:
        study: what was asked.
        outcome: what was run.
        findings: what was found.
        config: the base configuration, under every arm's overrides.
        seeds: of every arm.
        command: what was typed.
    """
    plan = outcome.plan
    arms = [
        {"name": arm.name, "world": arm.world, "overrides": arm.overrides} | _runs(outcome.variants[arm.name])
        for arm in plan.arms
    ]
    rivals = [{"name": name} | _runs(variant) for name, variant in outcome.variants.items() if variant.is_rival]
    versions: list[dict[str, str]] = []
    for variant in outcome.variants.values():
        for run in variant.runs:
            if run.result.get("versions", {}) not in [{}, *versions]:
                versions.append(run.result["versions"])
    return {
        "study": study.name,
        "question": study.question,
        "command": command,
        "seeds": list(seeds),
        "data": _data(outcome),
        "versions": versions,
        "base_config": config.model_dump(mode="json"),
        "worlds": {name: settings.model_dump(mode="json") for name, settings in plan.worlds.items()},
        "notes": list(plan.notes),
        "arms": arms,
        "rivals": rivals,
        "tests": [test.as_json() for test in findings.tests],
        "facts": findings.facts,
    }


def write_study(folder: Path, record: dict[str, Any], findings: Findings) -> Path:
    """Writes `<study>.svg`, `<study>.json` and, last, `<study>.md`.

    Args:
        folder: created when missing.
        record: see `study_record`.
        findings: what was found.

    Returns:
        The Markdown file.
    """
    name = record["study"]
    write_text(folder / f"{name}.svg", findings.picture)
    write_json(folder / f"{name}.json", record)
    write_text(folder / f"{name}.md", "\n".join(_page(record, findings)))
    return folder / f"{name}.md"


def _page(record: dict[str, Any], findings: Findings) -> list[str]:
    name, seeds = record["study"], record["seeds"]
    num_runs = sum(len(arm["runs"]) for arm in record["arms"])
    lines = [f"# {name}", "", record["question"], "", "```", record["command"], "```", ""]
    counted = (
        "One seed, so that tests and intervals speak of that seed alone" if len(seeds) == 1 else f"{len(seeds)} seeds"
    )
    lines += [f"{counted}; {num_runs} runs. Every figure, configuration and test: [{name}.json]({name}.json).", ""]
    for data in record["data"]:
        world = f"World {data['world']}: " if data["world"] else "Data: "
        lines.append(
            f"- {world}{data['source']}, {data['num_users']:,} users, {data['num_items']:,} items, "
            f"{data['num_events']:,} events in {data['num_blocks']} blocks, fingerprint {data['fingerprint'][:12]}."
        )
    lines += [f"- {note}" for note in record["notes"]]
    lines += ["", f"![{findings.caption}]({name}.svg)", "", findings.caption, ""]
    for table in findings.tables:
        lines += [f"## {table.title}", "", *markdown_table(table.columns, table.rows), ""]
    lines += ["## What may be said", ""]
    lines += [
        "Paired bootstrap over users, with the spread between seeds; [95 % interval], p-value, and the p-value after "
        "Holm's correction within its group of tests, which decides at 0.05.",
        "",
        *(sentences(findings.tests) or ["- Nothing was compared."]),
        "",
    ]
    return lines


def _runs(variant: Variant) -> dict[str, Any]:
    runs = [
        {"seed": run.result["seed"], "run_id": run.result["run_id"], "base_id": (run.result["base"] or {}).get("id")}
        | {"numbers": run_numbers(run.result)}
        for run in variant.runs
    ]
    keys = runs[0]["numbers"]
    spreads = {key: spread([run["numbers"][key] for run in runs]) for key in keys}
    return {
        "runs": runs,
        "mean": {key: mean for key, (mean, _) in spreads.items()},
        "std": {key: deviation for key, (_, deviation) in spreads.items()},
    }


def _data(outcome: Outcome) -> list[dict[str, Any]]:
    found = []
    for world in outcome.workspaces:
        used = [outcome.variants[arm.name] for arm in outcome.plan.arms if arm.world == world]
        if used:
            facts = used[0].runs[0].result
            found.append({"world": world, "fingerprint": facts["data_fingerprint"]} | facts["dataset"])
    return found
