"""`peso run`, `peso runs`, `peso baselines`, `peso report`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from peso.cli.options import (
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
    require_data,
    require_run,
    show_progress,
)


def run(
    workspace: WorkspaceOption,
    method: Annotated[
        str | None,
        typer.Option(help="Continual method, such as frozen, single or peso; a wrong name lists all.  [default: peso]"),
    ] = None,
    proximal: Annotated[
        str | None,
        typer.Option(
            help="What anchors the adapter: decoupled, paper, official, normalised or l2.  [default: decoupled]"
        ),
    ] = None,
    strength: Annotated[
        str | None,
        typer.Option(
            help="Strength (lambda) of the anchor; auto: chosen per block.  [default: the form's own, 3 for decoupled]"
        ),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option(
            help="How much of the way from where a block starts to where its training ends is carried on to the next "
            "block, up to 1; auto: chosen per block.  [default: auto for decoupled, 1 otherwise]"
        ),
    ] = None,
    lead: Annotated[
        float | None,
        typer.Option(
            help="How much of the rest of the way what recommends goes beyond that, 0 to 1; another one trains nothing "
            "anew.  [default: 0.3]"
        ),
    ] = None,
    catalogue: Annotated[str | None, typer.Option(help="Items that may be named: known or all.")] = None,
    repeats: Annotated[
        str | None, typer.Option(help="Naming what the user already took: auto, allowed or excluded.")
    ] = None,
    memory: Annotated[
        bool | None,
        typer.Option(
            "--memory/--no-memory", help="Mix counts of what stood near what into the lists.  [default: memory]"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and dropout.  [default: 0]")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file, or a preset such as paper; flags win over it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    json: JsonOption = False,
) -> None:
    """Train the base (or reuse it), update it block after block, and measure every block."""
    from peso.config import make_config

    overrides: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "proximal": {"form": proximal, "strength": strength, "share": share, "lead": lead},
    }
    overrides["memory"] = {"use": memory}
    overrides["decoding"] = {"catalogue": catalogue, "repeats": repeats}
    chosen = make_config(config, _without_none(overrides))
    require_data(workspace)

    from peso.training.processes import is_first, join_processes, leave_processes
    from peso.training.stream import run_stream

    join_processes()
    show_progress(is_silent=not is_first())
    folder = run_stream(workspace, chosen, resume)
    is_silent = not is_first()
    leave_processes()
    if is_silent:
        return
    print_result(folder, json)


def print_result(folder: Path, json: bool) -> None:
    """A finished run's result, block by block."""
    from peso.experiments.results import read_record

    result = read_record(folder).result
    if json:
        print_json(result)
        return

    import polars as pl

    columns = ["block", "num_targets", "hit@10", "ndcg@10", "log_likelihood", "train_seconds", "test_seconds"]
    print_table(pl.DataFrame([{name: block[name] for name in columns} for block in result["blocks"]]))
    mean = result["mean"]["ndcg@10"]
    shown = "none, as no later block has a user with three events" if mean is None else f"{mean:.4f}"
    typer.echo(f"mean NDCG@10 over later blocks: {shown}")
    typer.echo(str(folder / "result.json"))


def go_on(
    workspace: WorkspaceOption,
    older: Annotated[Path, typer.Option("--from", help="Workspace of the run to go on with.", show_default=False)],
    run: Annotated[str | None, typer.Option(help="Run id (see `peso runs`).  [default: the newest]")] = None,
    json: JsonOption = False,
) -> None:
    """Take over what a run of an older import has learned: its blocks as block 0, its codes, its model as the base."""
    require_data(workspace)
    require_run(older, run)
    show_progress()

    from peso.training.continuing import continue_run

    facts = continue_run(older, workspace, run)
    if json:
        print_json(facts)
        return
    typer.echo(
        f"{workspace} goes on with run {facts['run_id']} after block {facts['block']}: "
        f"{facts['num_blocks'] - 1} blocks to learn, {facts['num_new_items']:,} items with new codes."
    )
    typer.echo(f"Next: peso run --workspace {workspace} --config {facts['config']}")


def runs(workspace: WorkspaceOption, json: JsonOption = False) -> None:
    """List the runs and rivals of a workspace."""
    from peso.experiments.results import list_runs

    table = list_runs(workspace)
    if json:
        print_json(table.to_dicts())
    else:
        print_table(table)


def baselines(
    workspace: WorkspaceOption,
    catalogue: Annotated[str, typer.Option(help="Items that may be named: known or all.")] = "known",
    repeats: Annotated[
        str, typer.Option(help="Naming what the user already took: auto, allowed or excluded.")
    ] = "auto",
    classical: Annotated[
        bool,
        typer.Option("--classical", help="Also item-kNN, BPR and SASRec, updated and retrained; takes a while."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure the rivals: popularity, counts of successors and neighbours, near texts (of encoded items), classical."""
    from peso.baselines.run import BASELINES, run_baselines
    from peso.baselines.text import text_rivals
    from peso.config import make_config
    from peso.data.list_rules import ListRules
    from peso.data.storage import load_dataset
    from peso.experiments.results import list_runs
    from peso.files import read_json

    checked = make_config(None, {"decoding": {"catalogue": catalogue, "repeats": repeats}}).decoding
    dataset = load_dataset(workspace / "data")
    rivals = BASELINES + text_rivals(workspace, dataset)
    if classical:
        from peso.rivals.registry import classical_rivals

        rivals += classical_rivals()
        show_progress()
    folders = run_baselines(dataset, workspace, ListRules.choose(dataset, checked.catalogue, checked.repeats), rivals)
    if json:
        print_json([read_json(folder / "result.json", "rival's result") for folder in folders])
    else:
        names = [folder.name for folder in folders]
        table = list_runs(workspace)
        print_table(table.filter(table["run_id"].is_in(names)))


def report(workspace: WorkspaceOption, json: JsonOption = False) -> None:
    """Write report.html: figures, comparisons and example users of all runs of a workspace."""
    require_run(workspace, None)

    from peso.baselines.run import run_baselines
    from peso.data.list_rules import ListRules
    from peso.data.storage import load_dataset
    from peso.experiments.report import write_report
    from peso.experiments.results import load_results

    dataset = load_dataset(workspace / "data")
    decodings = [r.result["config"]["decoding"] for r in load_results(workspace) if r.result["base"]]
    for rules in {ListRules.choose(dataset, d["catalogue"], d["repeats"]) for d in decodings}:
        run_baselines(dataset, workspace, rules)
    path = write_report(workspace)
    if json:
        print_json({"report": str(path)})
    else:
        typer.echo(str(path))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    cleaned = {key: _without_none(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in cleaned.items() if value is not None and value != {}}
