"""`peso export`: a version in the layout of another program."""

from pathlib import Path
from typing import Annotated

import typer

from peso.cli.options import JsonOption, WorkspaceOption, print_json, require_folder, require_run, show_progress
from peso.types import ExportFormat


def export(
    workspace: WorkspaceOption,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder to write into.", show_default=False, callback=require_folder),
    ],
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format", help="peft: backbone and adapter; merged: one model; vllm: rows in the backbone, LoRA apart."
        ),
    ] = "peft",
    run: Annotated[str | None, typer.Option(help="Run id (see `peso runs`).  [default: the newest]")] = None,
    block: Annotated[int | None, typer.Option(help="Version after this block.  [default: the last]")] = None,
    json: JsonOption = False,
) -> None:
    """Write a version of a run for PEFT, plain transformers or vLLM."""
    require_run(workspace, run)
    show_progress(is_silent=True)

    from peso.training.exporting import export_version, serving_command

    folders = export_version(workspace, output, form, run, block)
    if json:
        print_json(folders)
    else:
        for name, folder in folders.items():
            typer.echo(f"{name}: {folder}")
        if form == "vllm":
            typer.echo(f"serve it: {serving_command(folders)}")
