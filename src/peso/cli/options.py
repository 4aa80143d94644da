"""Options that several commands share, and how results are printed."""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    import polars as pl


def require_folder(option: typer.CallbackParam, path: Path | None) -> Path | None:
    """A callback that refuses a folder which cannot be one, since a file stands at its place or above it.

    Raises:
        ConfigError: it is so.
    """
    from peso.errors import ConfigError

    found = None if path is None else next((place for place in (path, *path.parents) if place.exists()), None)
    if found is not None and not found.is_dir():
        raise ConfigError(f"{_flag(option)} {path}: {found} is a file; name a folder.")
    return path


def require_finite(option: typer.CallbackParam, number: float | None) -> float | None:
    """A callback that refuses infinity, and what is no number: Python reads both as floats.

    Raises:
        ConfigError: it is one of them.
    """
    _check_finite(_flag(option), number)
    return number


def _flag(option: typer.CallbackParam) -> str:
    return max(option.opts, key=len)


def _check_finite(flag: str, number: float | None) -> None:
    from peso.errors import ConfigError

    if number is not None and not math.isfinite(number):
        raise ConfigError(f"{flag} {number}: give a finite number.")


WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        help="Folder that holds data, bases, runs and report.",
        show_default=False,
        callback=require_folder,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on stdout.")]

NewItemShareOption = Annotated[
    float | None,
    typer.Option(
        "--new-item-share", help="Share of every list for new items, 0 to 1.  [default: the run's]", show_default=False
    ),
]
NewSinceOption = Annotated[
    str | None,
    typer.Option(
        "--new-since", help="New are items first taken then or later, such as 2024-03-09.", show_default=False
    ),
]

OnlyOption = Annotated[Path | None, typer.Option(help="Table of item_id: nothing else is named.", show_default=False)]
WithoutOption = Annotated[
    Path | None,
    typer.Option(help="Table of item_id: none of these is named (out of stock, say).", show_default=False),
]

RESULTS = Path("docs/results/studies")
ResultsOption = Annotated[
    Path | None, typer.Option(help=f"Folder for JSON, Markdown and SVG.  [default: {RESULTS}/<workspace name>]")
]


def results_folder(results: Path | None, workspace: Path) -> Path:
    """Where a study or measurement of a workspace is written."""
    return results or RESULTS / workspace.resolve().name


def require_data(workspace: Path) -> None:
    """Refuses an empty workspace before a command imports the model libraries, which takes seconds."""
    from peso.data.storage import require_dataset

    require_dataset(workspace / "data")


def require_run(workspace: Path, run: str | None) -> None:
    """Refuses a workspace without a finished run, or without the one that is named, in the same way."""
    from peso.training.finished import finished_run

    require_data(workspace)
    finished_run(workspace, run)


def places_for_new(share: float | None, since: str | None) -> dict[str, Any]:
    """What `--new-item-share` and `--new-since` change of a run's `decoding`; a share of 0 ends a run's date too."""
    chosen: dict[str, Any] = {"new_item_share": share, "new_since": since}
    return {name: value for name, value in chosen.items() if value is not None} | (
        {"new_since": since} if share == 0 else {}
    )


def command_of(run: Callable[..., None], description: str | None, **groups: type) -> Callable[..., None]:
    """A command whose options are the fields of dataclasses, so that several commands may share them.

    Args:
        run: takes an instance of each.
        description: of the command.
        groups: the dataclasses, by name of the argument; a field that has no default is a required option.
    """
    options: dict[str, Parameter] = {}
    names: dict[str, list[str]] = {}
    for group, kind in groups.items():
        hints = get_type_hints(kind, include_extras=True)
        names[group] = [field.name for field in dataclasses.fields(kind)]
        for field in dataclasses.fields(kind):
            default = Parameter.empty if field.default is dataclasses.MISSING else field.default
            options[field.name] = Parameter(
                field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
            )

    def command(**values: Any) -> None:
        for name, value in values.items():
            if isinstance(value, float):
                _check_finite(f"--{name.replace('_', '-')}", value)
        run(**{group: kind(**{name: values[name] for name in names[group]}) for group, kind in groups.items()})

    command.__signature__ = Signature(list(options.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: option.annotation for name, option in options.items()}
    command.__doc__ = description
    return command


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def print_table(frame: "pl.DataFrame") -> None:
    """A table in plain text, every row and column shown."""
    cells = [frame.columns] + [["" if cell is None else _text(cell) for cell in row] for row in frame.rows()]
    widths = [max(len(row[number]) for row in cells) for number in range(len(frame.columns))]
    for row in cells:
        padded = (
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        typer.echo("  ".join(padded).rstrip())


def _text(cell: object) -> str:
    return f"{cell:.4f}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)


def show_progress(is_silent: bool = False) -> None:
    """Sends peso's log to stderr, a line per epoch and block, and nothing of what libraries tell their developers.

    Args:
        is_silent: whether peso's own lines are left out as well (another process writes them).
    """
    import logging
    import warnings

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("peso").setLevel(logging.WARNING if is_silent else logging.INFO)
    warnings.simplefilter("ignore", FutureWarning)

    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read at import, which takes seconds and may never be needed
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
