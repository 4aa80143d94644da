"""`peso recommend`: the next items for one user, by title, or for all, as tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peso.cli.options import (
    JsonOption,
    NewItemShareOption,
    NewSinceOption,
    OnlyOption,
    WithoutOption,
    WorkspaceOption,
    places_for_new,
    print_json,
    require_run,
    show_progress,
)

if TYPE_CHECKING:
    from peso.data.item_choice import ItemChoice


def recommend(
    workspace: WorkspaceOption,
    user: Annotated[str | None, typer.Option("--user", "-u", help="User id as in the data.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="All users: a folder of Parquet tables.")] = False,
    num_items: Annotated[int, typer.Option("-k", help="Length of the list.", min=1)] = 10,
    run: Annotated[str | None, typer.Option(help="Run id (see `peso runs`).  [default: the newest]")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for --all.  [default: <workspace>/recommendations/<run id>]"),
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(help="Table of user_id and item_id: what happened since the import, oldest first; for --user."),
    ] = None,
    new_item_share: NewItemShareOption = None,
    new_since: NewSinceOption = None,
    only: OnlyOption = None,
    without: WithoutOption = None,
    json: JsonOption = False,
) -> None:
    """Recommend the next items for a user, or for all, with the newest adapter of a run."""
    from peso.errors import ConfigError

    if everyone == (user is not None):
        raise ConfigError("name one user by --user, or all by --all.")
    if user is not None and output is not None:
        raise ConfigError(f"--output {output} is for --all; the list of one user is printed.")
    if user is None and since is not None:
        raise ConfigError(f"--since {since} is for --user; for everyone's lists import the log again.")
    require_run(workspace, run)

    from peso.data.item_choice import read_item_choice

    decoding, choice = places_for_new(new_item_share, new_since), read_item_choice(only, without)
    if user is None:
        _recommend_for_all(workspace, num_items, run, output, decoding, choice, json)
        return
    show_progress(is_silent=True)

    from peso.training.recommending import recommend_for_user

    answer = recommend_for_user(workspace, user, num_items, run, decoding, since, choice)
    if json:
        print_json(answer)
        return
    typer.echo(f"{answer['run_id']}, adapter of block {answer['block']}; last items of {answer['user_id']}:")
    for item in answer["history"][-5:]:
        typer.echo(f"       {item['item_id']}  {item['title']}")
    typer.echo("recommended:")
    for position, item in enumerate(answer["recommendations"], start=1):
        typer.echo(f"  {position:2d}.  {item['item_id']}  {item['title']}  ({item['score']:.2f})")


def _recommend_for_all(
    workspace: Path,
    num_items: int,
    run: str | None,
    output: Path | None,
    decoding: dict[str, Any],
    choice: "ItemChoice",
    json: bool,
) -> None:
    show_progress()

    from peso.training.all_users import plan_job, recommend_for_all

    folder = recommend_for_all(plan_job(workspace, num_items, run, output, decoding=decoding, choice=choice))
    if json:
        print_json({"output": str(folder)})
    else:
        typer.echo(str(folder))
