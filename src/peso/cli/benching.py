"""`peso bench`: a measurement of the method itself on a workspace's data."""

from pathlib import Path
from typing import Annotated

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

app = typer.Typer(help="Measure what a part of the method does on a workspace's data.", no_args_is_help=True)


@app.callback()
def _bench() -> None:
    """Measure what a part of the method does on a workspace's data."""


@app.command()
def proximal(
    workspace: WorkspaceOption,
    width: Annotated[
        list[int] | None,
        typer.Option(help="Widths of the embedded backbone.  [default: the configuration's, and half]"),
    ] = None,
    rank: Annotated[
        list[int] | None, typer.Option(help="Ranks of the adapter.  [default: the configuration's, and a quarter]")
    ] = None,
    results: ResultsOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file or preset under every configuration.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """What every form of the anchor does to one update: its share of a step, and where the adapter ends."""
    from peso.config import make_config
    from peso.errors import ConfigError
    from peso.files import read_json

    base = make_config(config)
    is_embedded = base.backbone.source == "embedded"
    if width and not is_embedded:
        raise ConfigError(f"--width {width[0]} is for the embedded backbone; {base.backbone.source!r} has its own.")
    require_data(workspace)
    show_progress()

    from peso.studies.activity import measure_activity
    from peso.studies.activity_page import NAME, write_activity
    from peso.training.outcome import versions

    own = base.backbone.hidden_size
    widths = width or (sorted({own // 2, own}) if is_embedded else [own])
    ranks = rank or sorted({max(1, base.adapter.r // 4), base.adapter.r})
    sizes = [(one, other) for one in widths for other in ranks]
    activities, roundings, fingerprint = measure_activity(workspace, config, sizes)
    folder = results_folder(results, workspace)
    options = [f"--width {one}" for one in widths] + [f"--rank {one}" for one in ranks]
    facts = {
        "command": " ".join([f"peso bench proximal --workspace {workspace.name}", *options]),
        "base_config": base.model_dump(mode="json"),
        "data_fingerprint": fingerprint,
        "versions": versions(),
    }
    page = write_activity(folder, activities, roundings, facts)
    if json:
        print_json(read_json(folder / f"{NAME}.json", "benchmark's result"))
    else:
        typer.echo(str(page))
