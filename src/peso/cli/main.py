"""The command `peso`. Each command imports what it needs when it runs, so that `peso --help` is instant."""

import sys
from typing import Annotated

import typer

from peso.cli import (
    benching,
    downloading,
    exporting,
    importing,
    items,
    planning,
    recommending,
    running,
    scaling,
    studying,
)
from peso.errors import PesoError

USER_ERROR_EXIT_CODE = 2

app = typer.Typer(
    name="peso",
    help="Keeps an LLM-based generative recommender up to date as its users change.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(importing.app, name="import")
app.add_typer(items.app, name="items")
app.add_typer(benching.app, name="bench")
app.add_typer(scaling.app, name="scale")
app.command("import-adapter")(importing.import_adapter)
app.command("download")(downloading.download)
app.command("card")(importing.card)
app.command("simulate")(importing.simulate)
app.command("plan")(planning.plan)
app.command("run")(running.run)
app.command("continue")(running.go_on)
app.command("runs")(running.runs)
app.command("baselines")(running.baselines)
app.command("report")(running.report)
app.command("study")(studying.study)
app.command("export")(exporting.export)
app.command("recommend")(recommending.recommend)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("peso-rec"))
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keeps an LLM-based generative recommender up to date as its users change."""


def main() -> None:
    """Runs the command line; a `PesoError` becomes one sentence on stderr and exit code 2, as a wrong flag is."""
    try:
        app()
    except PesoError as error:
        typer.echo(f"peso: {error}", err=True)
        sys.exit(USER_ERROR_EXIT_CODE)
