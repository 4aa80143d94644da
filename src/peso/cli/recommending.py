"""`peso recommend`: the next items for one user, by title."""

from typing import Annotated

import typer

from peso.cli.options import JsonOption, WorkspaceOption, print_json, show_progress


def recommend(
    workspace: WorkspaceOption,
    user: Annotated[str, typer.Option("--user", "-u", help="User id as in the data.")],
    num_items: Annotated[int, typer.Option("-k", help="Length of the list.", min=1)] = 10,
    run: Annotated[str | None, typer.Option(help="Run id (see `peso runs`).  [default: the newest]")] = None,
    json: JsonOption = False,
) -> None:
    """Recommend the next items for a user, with the newest adapter of a run."""
    show_progress(is_silent=True)

    from peso.training.recommending import recommend_for_user

    answer = recommend_for_user(workspace, user, num_items, run)
    if json:
        print_json(answer)
        return
    typer.echo(f"{answer['run_id']}, adapter of block {answer['block']}; last items of {answer['user_id']}:")
    for item in answer["history"][-5:]:
        typer.echo(f"       {item['item_id']}  {item['title']}")
    typer.echo("recommended:")
    for position, item in enumerate(answer["recommendations"], start=1):
        typer.echo(f"  {position:2d}.  {item['item_id']}  {item['title']}  ({item['score']:.2f})")
