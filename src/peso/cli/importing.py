"""`peso import ...` and `peso simulate`: filling a workspace with data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peso.cli.options import JsonOption, WorkspaceOption, print_json, print_table
from peso.errors import WorkspaceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peso.data.dataset import Dataset

app = typer.Typer(help="Read interaction data into a workspace.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _formats() -> None:
    """Read interaction data into a workspace."""


@app.command("peso-release")
def peso_release(
    folder: Annotated[Path, typer.Argument(help="Folder with *.block_N.json files and *.index.*.json.")],
    workspace: WorkspaceOption,
    json: JsonOption = False,
) -> None:
    """Read the layout that the paper's authors released."""
    from peso.data.sources.peso_release import read_peso_release

    imported = read_peso_release(folder)
    _fill(workspace, imported.dataset, imported.source_codes, imported.level_sizes, json)


def import_adapter(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder of a run of the authors' code, or of a PEFT adapter.", show_default=False)
    ],
    workspace: WorkspaceOption,
    config: Annotated[Path, typer.Option("--config", help="TOML file that names the backbone.", show_default=False)],
    block: Annotated[int, typer.Option(help="Version after this block, of a run.", min=0)] = 0,
    json: JsonOption = False,
) -> None:
    """Put an adapter trained elsewhere into a workspace, as the start of its own."""
    from dataclasses import asdict

    from peso.config import make_config

    chosen = make_config(config)

    from peso.training.importing import import_adapter as put_in

    imported = put_in(workspace, chosen, checkpoint, block)
    if json:
        print_json(asdict(imported))
        return
    tables = " and ".join(imported.tables) or "no whole matrix"
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
    from peso.data.simulate import SimulationSettings
    from peso.data.simulate import simulate as simulate_world

    world = simulate_world(SimulationSettings(num_users=users, num_items=items, num_blocks=blocks, seed=seed))
    _fill(workspace, world.dataset, world.source_codes, world.level_sizes, json)
    world.save_truth(workspace / "data" / "truth")


def _fill(
    workspace: Path,
    dataset: "Dataset",
    source_codes: "NDArray[np.int64]",
    level_sizes: tuple[int, ...],
    as_json: bool,
) -> None:
    from peso.data.statistics import block_statistics
    from peso.data.storage import load_dataset, save_dataset
    from peso.files import atomic_directory
    from peso.semantic_ids.catalogue import build_semantic_ids, load_semantic_ids

    data = workspace / "data"
    semantic_ids = build_semantic_ids(dataset, source_codes, level_sizes)
    if data.exists():
        stored = load_dataset(data)
        stored_ids = load_semantic_ids(data / "semantic_ids", stored.item_ids)
        if (stored.fingerprint, stored_ids.fingerprint) != (dataset.fingerprint, semantic_ids.fingerprint):
            raise WorkspaceError(
                f"workspace {workspace} holds another data set ({stored.source}, {stored.num_events:,} events); "
                "use a new workspace, its runs could not be compared."
            )
    else:
        with atomic_directory(data) as temporary:
            save_dataset(dataset, temporary)
            semantic_ids.save(temporary / "semantic_ids", dataset.item_ids)
    statistics = block_statistics(dataset)
    facts = {
        "source": dataset.source,
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
        "num_events": dataset.num_events,
        "num_items_moved_to_a_free_code": semantic_ids.num_moved,
        "level_sizes": list(semantic_ids.level_sizes),
    }
    if as_json:
        print_json(facts | {"blocks": statistics.to_dicts()})
        return
    print_table(statistics)
    typer.echo(
        f"{dataset.num_users:,} users, {dataset.num_items:,} items, {dataset.num_events:,} events; "
        f"{semantic_ids.num_moved:,} items shared a semantic ID and were given a free one."
    )
