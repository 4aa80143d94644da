"""`peso import ...` and `peso simulate`: filling a workspace with data."""

from pathlib import Path
from typing import Annotated

import typer

from peso.cli.filling import fill
from peso.cli.logs import FORMATS, ImportOptions, LogFormat, import_log
from peso.cli.options import JsonOption, WorkspaceOption, command_of, print_json, print_table, require_data

app = typer.Typer(help="Read interaction data into a workspace.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _formats() -> None:
    """Read interaction data into a workspace."""


def _import_log(log: LogFormat, options: ImportOptions) -> None:
    from peso.data.sources.log_reader import read_log

    import_log(log, options, options.rules(), read_log)


for _name, _format in FORMATS.items():
    app.command(_name)(command_of(_import_log, _format.__doc__, log=_format, options=ImportOptions))


@app.command("minionerec")
def minionerec(
    folder: Annotated[Path, typer.Argument(help="Folder with *.item.json, *.index.json and *.valid.csv, *.test.csv.")],
    workspace: WorkspaceOption,
    json: JsonOption = False,
) -> None:
    """Read the layout of MiniOneRec's release: histories are block 0, then valid and test."""
    from peso.data.sources.minionerec import read_minionerec

    fill(workspace, read_minionerec(folder), json)


@app.command("peso-release")
def peso_release(
    folder: Annotated[Path, typer.Argument(help="Folder with *.block_N.json files and *.index.*.json.")],
    workspace: WorkspaceOption,
    json: JsonOption = False,
) -> None:
    """Read the layout that the paper's authors released."""
    from peso.data.sources.peso_release import read_peso_release

    fill(workspace, read_peso_release(folder), json)


def card(workspace: WorkspaceOption, json: JsonOption = False) -> None:
    """Write data.html: what is in the data, block by block, and how it changes."""
    import polars as pl

    from peso.experiments.data_card import write_data_card

    facts = write_data_card(workspace)
    if json:
        print_json(facts)
        return
    columns = ["block", "num_users", "num_new", "num_returning", "num_dormant", "num_new_items", "share_of_new_items"]
    print_table(pl.DataFrame(facts["blocks"]).select(*columns, "median_events", "drift"))
    typer.echo(facts["report"])


def import_adapter(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder of a run of the authors' code, or of a PEFT adapter.", show_default=False)
    ],
    workspace: WorkspaceOption,
    config: Annotated[
        Path, typer.Option("--config", help="TOML file or preset that names the backbone.", show_default=False)
    ],
    block: Annotated[int, typer.Option(help="Version after this block, of a run.", min=0)] = 0,
    json: JsonOption = False,
) -> None:
    """Put an adapter trained elsewhere into a workspace, as the start of its own."""
    from dataclasses import asdict

    from peso.config import make_config

    chosen = make_config(config)
    require_data(workspace)

    from peso.training.importing import import_adapter as put_in

    imported = put_in(workspace, chosen, checkpoint, block)
    if json:
        print_json(asdict(imported))
        return
    tables = " and ".join(imported.tables) or "no whole matrix"
    if imported.num_token_rows:
        tables = f"{imported.num_token_rows:,} rows of {tables}"
    typer.echo(
        f"rank {imported.rank} on {imported.num_layers} layers, {tables}; {imported.num_codes:,} codes known, "
        f"{imported.num_codes_missing:,} not."
    )
    if imported.largest_change_left_out > 0:
        typer.echo(
            f"rows of other tokens are left out, which the checkpoint had changed by up to "
            f'{imported.largest_change_left_out:.2g}; adapter.token_rows = "all" keeps them.'
        )
    typer.echo(
        f'to start from it: adapter.start = "{imported.name}", and training.base_epochs = 0 to take it as it is.'
    )


def simulate(
    workspace: WorkspaceOption,
    users: Annotated[int, typer.Option(help="Number of users.", min=10)] = 2000,
    items: Annotated[int, typer.Option(help="Number of items.", min=20)] = 1500,
    blocks: Annotated[int, typer.Option(help="Number of blocks, the base included.", min=2)] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the world.", min=0)] = 0,
    json: JsonOption = False,
) -> None:
    """Make a drifting world: users come, go and return, tastes drift, items appear."""
    from peso.data.imported import ImportedData
    from peso.data.simulate import SimulationSettings
    from peso.data.simulate import simulate as simulate_world

    world = simulate_world(SimulationSettings(num_users=users, num_items=items, num_blocks=blocks, seed=seed))
    fill(workspace, ImportedData(world.dataset, world.source_codes, world.level_sizes), json)
    world.save_truth(workspace / "data" / "truth")
