"""`peso items ...`: semantic IDs of a workspace's items."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from peso.cli.options import (
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
    require_data,
    require_folder,
    require_run,
    show_progress,
)
from peso.types import EncoderName, QuantizerName

app = typer.Typer(help="Give items semantic IDs, and judge them.", no_args_is_help=True, rich_markup_mode=None)


EncoderOption = Annotated[
    str, typer.Option(help=f"{', '.join(get_args(EncoderName))}; several joined by + are concatenated.")
]
QuantizerOption = Annotated[str, typer.Option(help=f"{', '.join(get_args(QuantizerName))}.")]
LevelsOption = Annotated[int, typer.Option(help="Codes per item.")]
CodesOption = Annotated[int, typer.Option(help="Different codes of a level.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Model of sentences (default: the MiniLM of the extra text) or language-model: folder or hub name."
    ),
]
VectorsOption = Annotated[Path | None, typer.Option(help=".npy or .parquet file of precomputed vectors.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]


@app.callback()
def _items() -> None:
    """Give items semantic IDs, and judge them."""


@app.command("encode")
def encode(
    workspace: WorkspaceOption,
    encoder: EncoderOption = "tfidf",
    quantizer: QuantizerOption = "rq-kmeans",
    levels: LevelsOption = 4,
    codes: CodesOption = 256,
    model: ModelOption = None,
    vectors: VectorsOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Learn a codebook from the items of block 0 and give every item a semantic ID of its own."""
    require_data(workspace)
    show_progress()

    from peso.semantic_ids.encoding import EncodingRequest, encode_workspace

    request = EncodingRequest(encoder, quantizer, (codes,) * levels, seed, model, vectors)
    print_encoding(encode_workspace(workspace, request), json)


def print_encoding(path: Path, json: bool) -> None:
    """What an encoding did, from its record."""
    from peso.files import read_json

    record = read_json(path, "record of the encoding")
    if json:
        print_json(record)
        return
    typer.echo(
        f"{record['num_items']:,} items have semantic IDs of {len(record['level_sizes'])} levels, learned from "
        f"{record['num_items_learned_from']:,} items of block 0; {record['num_items_moved_to_a_free_code']:,} items "
        "shared theirs and were given a free one."
    )
    if record["num_items_without_vector"]:
        typer.echo(
            f"Of {record['num_items_without_vector']:,} items the encoder knows nothing: their codes are arbitrary."
        )
    if record["error_before"]:
        rise = record["error_after"] / record["error_before"] - 1
        typer.echo(f"Mean squared error of the codes: {record['error_after']:.4g}, {rise:.1%} more than before.")


@app.command("report")
def report(workspace: WorkspaceOption, json: JsonOption = False) -> None:
    """Write items.html: how much the codes keep of the items, level by level, with a picture of the tree."""
    require_data(workspace)
    show_progress()

    from peso.experiments.items_report import write_items_report

    facts = write_items_report(workspace)
    if json:
        print_json(facts)
        return

    import polars as pl

    columns = ["level", "num_used", "perplexity", "num_prefixes", "largest_prefix", "codebook_error"]
    columns += ["variance_within", "neighbours_sharing", "neighbours_by_chance", "purity"]
    print_table(pl.DataFrame(facts["levels"]).select(columns))
    typer.echo(facts["report"])


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help=".csv, .jsonl or .parquet with item_id, title and, if known, text.")],
    workspace: WorkspaceOption,
    json: JsonOption = False,
) -> None:
    """Give new items codes from the frozen codebook; no old code changes, and `peso recommend` may name them."""
    require_data(workspace)
    show_progress()

    from peso.semantic_ids.adding import add_items

    facts = add_items(workspace, file)
    if json:
        print_json(facts)
        return
    typer.echo(
        f"{facts['num_added']:,} items added, {facts['num_items']:,} in all; {facts['num_moved']:,} found their "
        f"nearest code taken, and of {facts['num_without_vector']:,} the encoder knows nothing."
    )
    if facts["num_new_codes"]:
        typer.echo(
            f"There were more items than codes: the last level grew by {facts['num_new_codes']:,}, and models read the "
            "new codes by what they know of their nearest neighbours."
        )
    if facts["error_old"]:
        typer.echo(
            f"Mean squared error of their codes: {facts['error_new']:.4g}; the catalogue's: {facts['error_old']:.4g}."
        )


@app.command("drift")
def drift(workspace: WorkspaceOption, json: JsonOption = False) -> None:
    """Say whether the codebook still fits the items of later blocks, or should be learned anew."""
    require_data(workspace)
    show_progress()

    from dataclasses import asdict

    from peso.semantic_ids.drift import measure_drift

    found = measure_drift(workspace)
    if json:
        print_json(asdict(found))
        return

    import polars as pl

    print_table(pl.DataFrame([asdict(block) for block in found.blocks]))
    typer.echo(f"Unseen items of block 0: mean squared error {found.held_out_error:.4g}.")
    typer.echo(found.reason)


@app.command("refresh")
def refresh(
    workspace: WorkspaceOption,
    into: Annotated[
        Path, typer.Option(help="Folder of the new workspace.", show_default=False, callback=require_folder)
    ],
    share: Annotated[float, typer.Option(help="Largest share of the items that may change their codes.")] = 0.05,
    after: Annotated[
        int | None,
        typer.Option(
            help="Last block that was learned; it and those before become block 0.  [default: the last but one]"
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Run whose version after that block the new workspace starts from.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Let the codebook learn from later items, move the items whose codes are wrong, and carry a model over."""
    require_data(workspace)
    show_progress()

    from peso.data.storage import load_dataset

    last = load_dataset(workspace / "data").num_blocks - 2 if after is None else after
    if run is not None:
        require_run(workspace, run)

    from peso.semantic_ids.refreshing import refresh_workspace
    from peso.training.carrying import carry_over, find_version

    version = None if run is None else find_version(workspace, run, last)
    facts = refresh_workspace(workspace, into, last, share)
    if version is not None:
        facts["base"] = str(carry_over(version, into))
    if json:
        print_json(facts)
        return
    typer.echo(
        f"{facts['num_items']:,} items occur up to block {last}; {facts['num_moved']:,} moved, the codes of "
        f"{facts['num_left']:,} more are wrong and stay. Mean squared error of the codes: {facts['error_before']:.4g} "
        f"before, {facts['error_after']:.4g} now. {facts['num_later']:,} later items have new codes."
    )
    if version is not None:
        typer.echo(
            f"Run {run} goes on in {into}, with what it knew after block {last}: "
            f"peso run --workspace {into} --config {version.run / 'config.toml'}"
        )
