"""`peso import ...` and `peso simulate`: filling a workspace with data."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peso.cli.options import JsonOption, WorkspaceOption, print_json, print_table

if TYPE_CHECKING:
    from peso.data.imported import ImportedData
    from peso.data.importing import ImportRules
    from peso.data.item_texts import ItemText
    from peso.data.sources.amazon import AmazonRelease
    from peso.data.sources.bad_rows import Rejects

app = typer.Typer(help="Read interaction data into a workspace.", no_args_is_help=True, rich_markup_mode=None)

LogArgument = Annotated[Path, typer.Argument(help="File, or folder of files; .gz and .zst are read as they are.")]
MinRatingOption = Annotated[float | None, typer.Option(help="Leave out events with a lower rating.")]
MinUserEventsOption = Annotated[int, typer.Option(help="Leave out users with fewer events, until stable.", min=2)]
MinItemEventsOption = Annotated[int, typer.Option(help="Leave out items with fewer events, until stable.", min=1)]
BaseShareOption = Annotated[float, typer.Option(help="Share of the events in block 0.", min=0.01, max=0.99)]
UpdatesOption = Annotated[int, typer.Option(help="Later blocks, of equal share.", min=1)]
EveryOption = Annotated[
    str | None, typer.Option(help="A later block per day, week or month, or per so many events, instead of --updates.")
]
CutOption = Annotated[
    list[str] | None, typer.Option(help="First day of block 1; again for block 2, and so on; instead of shares.")
]
LikeOption = Annotated[
    Path | None,
    typer.Option(
        help="Workspace of an earlier import of this log: the same cuts, and a block for all that came since."
    ),
]
LenientOption = Annotated[
    bool, typer.Option("--lenient", help="Set bad rows aside in rejects.jsonl instead of stopping at them.")
]


@app.callback()
def _formats() -> None:
    """Read interaction data into a workspace."""


@app.command("table")
def table(
    log: LogArgument,
    workspace: WorkspaceOption,
    user: Annotated[str, typer.Option(help="Column of the user's id.", show_default=False)],
    item: Annotated[str, typer.Option(help="Column of the item's id.", show_default=False)],
    time: Annotated[
        str | None, typer.Option(help="Column of the time; without it, rows stand in the order of time.")
    ] = None,
    rating: Annotated[str | None, typer.Option(help="Column of the rating.")] = None,
    time_unit: Annotated[
        str | None, typer.Option(help="Of numbers since 1970: s, ms, us or ns.  [default: seen]")
    ] = None,
    time_format: Annotated[str | None, typer.Option(help="Of text, such as %d.%m.%Y %H:%M.  [default: seen]")] = None,
    separator: Annotated[str | None, typer.Option(help="Of text tables.  [default: , or in .tsv a tab]")] = None,
    names: Annotated[
        str | None, typer.Option(help="Names of all columns, with commas, where a text table has no header line.")
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help=".csv, .jsonl or .parquet with item_id, title and, if known, text, categories.")
    ] = None,
    min_rating: MinRatingOption = None,
    min_user_events: MinUserEventsOption = 2,
    min_item_events: MinItemEventsOption = 1,
    base_share: BaseShareOption = 0.6,
    updates: UpdatesOption = 4,
    every: EveryOption = None,
    cut: CutOption = None,
    like: LikeOption = None,
    lenient: LenientOption = False,
    json: JsonOption = False,
) -> None:
    """Read your own log: .csv, .tsv, .jsonl or .parquet, with columns of any names."""
    from peso.data.importing import make_dataset
    from peso.data.sources.item_files import read_item_table
    from peso.data.sources.row_batch import Columns
    from peso.data.sources.table import TableLayout, read_table
    from peso.data.sources.times import choose_time_format

    rules = _rules(min_rating, min_user_events, min_item_events, base_share, updates, every, cut, like)
    layout = TableLayout(
        Columns(user, item, time, rating),
        choose_time_format(time_unit, time_format),
        separator,
        None if names is None else tuple(names.split(",")),
    )
    texts = {} if items is None else read_item_table(items)

    def read(rejects: "Rejects") -> "ImportedData":
        interactions, files = read_table(log, layout, rejects)
        return make_dataset(interactions, files, f"table {log.name}", rules, lambda _: texts)

    _import(workspace, lenient, read, json)


@app.command("amazon-2018")
def amazon_2018(
    log: LogArgument,
    workspace: WorkspaceOption,
    items: Annotated[Path | None, typer.Option(help="File of item metadata, for titles and texts.")] = None,
    min_rating: MinRatingOption = None,
    min_user_events: MinUserEventsOption = 2,
    min_item_events: MinItemEventsOption = 1,
    base_share: BaseShareOption = 0.6,
    updates: UpdatesOption = 4,
    every: EveryOption = None,
    cut: CutOption = None,
    like: LikeOption = None,
    lenient: LenientOption = False,
    json: JsonOption = False,
) -> None:
    """Read Amazon Reviews of 2014 or 2018: JSON lines, times in seconds."""
    rules = _rules(min_rating, min_user_events, min_item_events, base_share, updates, every, cut, like)
    _import(workspace, lenient, lambda rejects: _amazon("2018", log, items, rules, rejects), json)


@app.command("amazon-2023")
def amazon_2023(
    log: LogArgument,
    workspace: WorkspaceOption,
    items: Annotated[
        Path | None, typer.Option(help="File of item metadata (meta_*.jsonl), for titles and texts.")
    ] = None,
    min_rating: MinRatingOption = None,
    min_user_events: MinUserEventsOption = 2,
    min_item_events: MinItemEventsOption = 1,
    base_share: BaseShareOption = 0.6,
    updates: UpdatesOption = 4,
    every: EveryOption = None,
    cut: CutOption = None,
    like: LikeOption = None,
    lenient: LenientOption = False,
    json: JsonOption = False,
) -> None:
    """Read Amazon Reviews of 2023: JSON lines, times in milliseconds."""
    rules = _rules(min_rating, min_user_events, min_item_events, base_share, updates, every, cut, like)
    _import(workspace, lenient, lambda rejects: _amazon("2023", log, items, rules, rejects), json)


@app.command("movielens")
def movielens(
    folder: Annotated[Path, typer.Argument(help="Unpacked release: ratings.csv, ratings.dat or u.data, and movies.")],
    workspace: WorkspaceOption,
    min_rating: MinRatingOption = None,
    min_user_events: MinUserEventsOption = 2,
    min_item_events: MinItemEventsOption = 1,
    base_share: BaseShareOption = 0.6,
    updates: UpdatesOption = 4,
    every: EveryOption = None,
    cut: CutOption = None,
    like: LikeOption = None,
    lenient: LenientOption = False,
    json: JsonOption = False,
) -> None:
    """Read a MovieLens release, 100K to 32M."""
    from peso.data.importing import make_dataset
    from peso.data.sources.movielens import read_movielens

    rules = _rules(min_rating, min_user_events, min_item_events, base_share, updates, every, cut, like)

    def read(rejects: "Rejects") -> "ImportedData":
        interactions, texts, files = read_movielens(folder, rejects)
        return make_dataset(interactions, files, f"MovieLens {folder.name}", rules, lambda _: texts)

    _import(workspace, lenient, read, json)


@app.command("minionerec")
def minionerec(
    folder: Annotated[Path, typer.Argument(help="Folder with *.item.json, *.index.json and *.valid.csv, *.test.csv.")],
    workspace: WorkspaceOption,
    json: JsonOption = False,
) -> None:
    """Read the layout of MiniOneRec's release: histories are block 0, then valid and test."""
    from peso.data.sources.minionerec import read_minionerec

    _fill(workspace, read_minionerec(folder), json)


@app.command("peso-release")
def peso_release(
    folder: Annotated[Path, typer.Argument(help="Folder with *.block_N.json files and *.index.*.json.")],
    workspace: WorkspaceOption,
    json: JsonOption = False,
) -> None:
    """Read the layout that the paper's authors released."""
    from peso.data.sources.peso_release import read_peso_release

    _fill(workspace, read_peso_release(folder), json)


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
    from peso.data.imported import ImportedData
    from peso.data.simulate import SimulationSettings
    from peso.data.simulate import simulate as simulate_world

    world = simulate_world(SimulationSettings(num_users=users, num_items=items, num_blocks=blocks, seed=seed))
    _fill(workspace, ImportedData(world.dataset, world.source_codes, world.level_sizes), json)
    world.save_truth(workspace / "data" / "truth")


def _amazon(
    release: "AmazonRelease", log: Path, items: Path | None, rules: "ImportRules", rejects: "Rejects"
) -> "ImportedData":
    from peso.data.importing import make_dataset
    from peso.data.sources.amazon import read_amazon_reviews
    from peso.data.sources.item_files import read_amazon_items

    interactions, files = read_amazon_reviews(log, release, rejects)

    def texts(item_ids: "Sequence[str]") -> "Mapping[str, ItemText]":
        return {} if items is None else read_amazon_items(items, set(item_ids), rejects)

    return make_dataset(interactions, files, f"Amazon Reviews {release}, {log.name}", rules, texts)


def _rules(
    min_rating: float | None,
    min_user_events: int,
    min_item_events: int,
    base_share: float,
    updates: int,
    every: str | None,
    cut: list[str] | None,
    like: Path | None,
) -> "ImportRules":
    from peso.data.blocks import BlockRules, read_cuts, read_every
    from peso.data.cleaning import CleaningRules
    from peso.data.importing import ImportRules, cuts_behind
    from peso.errors import DataError

    if sum(bool(given) for given in (every, cut, like)) > 1:
        raise DataError("--every, --cut and --like each say where blocks begin; give one of them.")
    cuts = cuts_behind(like / "data") if like is not None else read_cuts(cut or ())
    blocks = BlockRules(base_share, updates, read_every(every), cuts)
    return ImportRules(CleaningRules(min_rating, min_user_events, min_item_events), blocks)


def _import(workspace: Path, lenient: bool, read: "Callable[[Rejects], ImportedData]", as_json: bool) -> None:
    from peso.data.sources.bad_rows import collect_rejects

    with collect_rejects(workspace, lenient) as rejects:
        imported = read(rejects)
        _fill(workspace, imported, as_json)


def _fill(workspace: Path, imported: "ImportedData", as_json: bool) -> None:
    from peso.data.statistics import block_statistics
    from peso.semantic_ids.filling import fill_workspace

    semantic_ids = fill_workspace(workspace, imported)
    dataset, record = imported.dataset, imported.record
    statistics = block_statistics(dataset)
    facts: dict[str, Any] = {
        "source": dataset.source,
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
        "num_events": dataset.num_events,
        "num_items_moved_to_a_free_code": None if semantic_ids is None else semantic_ids.num_moved,
        "level_sizes": None if semantic_ids is None else list(semantic_ids.level_sizes),
    }
    if as_json:
        print_json(facts | {"import": dict(record), "blocks": statistics.to_dicts()})
        return
    for step in record.get("cleaning", ()):
        typer.echo(
            f"{step['step']}: {step['num_events']:,} events of {step['num_users']:,} users, {step['num_items']:,} items"
        )
    if record.get("num_rows_set_aside"):
        typer.echo(f"{record['num_rows_set_aside']:,} of {record['num_rows']:,} rows were set aside in rejects.jsonl.")
    print_table(statistics)
    typer.echo(f"{dataset.num_users:,} users, {dataset.num_items:,} items, {dataset.num_events:,} events.")
    if semantic_ids is None:
        typer.echo(f"Next: peso items encode --workspace {workspace}")
    else:
        typer.echo(f"{semantic_ids.num_moved:,} items shared a semantic ID and were given a free one.")
