"""`peso study`: a question answered by many runs, in three files."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from peso.cli.options import (
    JsonOption,
    ResultsOption,
    WorkspaceOption,
    print_json,
    require_data,
    results_folder,
    show_progress,
)
from peso.types import StudyName


def study(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(get_args(StudyName))}.", show_default=False)],
    workspace: WorkspaceOption,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ... of every configuration; at least 1.")] = 3,
    results: ResultsOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file or preset under every configuration.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Runs at a time, each with its share of the cores, and memory of its own; at least 1.")
    ] = 1,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A configuration, a rival, or a world, to leave out; may be given several times."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a study's missing runs, compare them with paired tests, and write what may be claimed."""
    from peso.studies.request import check_request

    check_request(name, seeds, jobs, config)
    require_data(workspace)
    show_progress()

    from peso.studies.registry import run_study

    folder = results_folder(results, workspace)
    record = run_study(name, workspace, seeds, folder, config, jobs, without or ())
    if json:
        print_json(record)
    else:
        typer.echo(str(folder / f"{name}.md"))
