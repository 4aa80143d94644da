"""`peso plan`: memory, speed and hours before anything is started."""

from pathlib import Path
from typing import Annotated, Any

import typer

from peso.cli.options import (
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
    require_data,
    require_finite,
    show_progress,
)

GIB = 2**30


def plan(
    workspace: WorkspaceOption,
    backbone: Annotated[
        str | None, typer.Option(help="Folder or hub name of the language model.  [default: that of --config]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file, or a preset such as paper, of the run to plan.")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            help="Plan for an accelerator with so many GiB; without it, for this CPU.", min=0.1, callback=require_finite
        ),
    ] = None,
    teraflops: Annotated[
        float,
        typer.Option(
            help="10^12 floating-point operations per second that the accelerator keeps up.",
            min=0.01,
            callback=require_finite,
        ),
    ] = 100.0,
    processes: Annotated[
        int,
        typer.Option(help="Processes of torchrun, each with such an accelerator or CPU, that share the run.", min=1),
    ] = 1,
    json: JsonOption = False,
) -> None:
    """Say what a run will need: memory, tokens per second, hours per block. No weights are read."""
    from dataclasses import asdict

    from peso.config import make_config

    overrides: dict[str, Any] = {"backbone": {"source": backbone}} if backbone is not None else {}
    chosen = make_config(config, overrides)
    require_data(workspace)
    show_progress(is_silent=True)

    from peso.training.materials import load_materials
    from peso.training.planning import plan_run

    made = plan_run(load_materials(workspace, chosen), gpu_memory, teraflops, processes)
    if json:
        print_json(asdict(made))
        return

    import polars as pl

    typer.echo(
        f"{made.num_parameters:,} parameters, {made.stages[-1].num_trained:,} train; "
        f"a version is {made.version_bytes / 1e6:,.1f} MB"
        + (f", what the next block starts from {made.carried_bytes / 1e6:,.1f} MB more" if made.carried_bytes else "")
    )
    if made.num_processes > 1:
        typer.echo(f"memory of each of {made.num_processes} processes:")
    parts = ("weights", "state", "pass", "total")
    print_table(
        pl.DataFrame(
            [
                {"stage": stage.name} | {f"{part} GiB": asdict(stage)[f"{part}_bytes"] / GIB for part in parts}
                for stage in made.stages
            ]
        )
    )
    if made.fits is not None:
        verdict = "fits into" if made.fits else "does not fit into"
        typer.echo(f"{made.peak_bytes / GIB:.1f} GiB {verdict} {gpu_memory:g} GiB, a tenth of which is kept free")
    if made.fits is False:
        typer.echo(
            "less: training.gradient_checkpointing, more training.passes_per_step, fewer training.targets_per_row, "
            'adapter.token_rows = "codes"'
        )
    typer.echo(f"{made.tokens_per_second:,.0f} tokens/s in training ({made.assumed})")
    print_table(pl.DataFrame([asdict(block) for block in made.blocks]))
    if made.not_planned:
        typer.echo(f"not counted: {', '.join(made.not_planned)}")
