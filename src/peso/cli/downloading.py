"""`peso download`: public logs, ready for `peso import`."""

from pathlib import Path
from typing import Annotated

import typer

from peso.cli.options import JsonOption, print_json, require_folder, show_progress


def download(
    log: Annotated[str, typer.Argument(help="amazon-2018, amazon-2023 or movielens.", show_default=False)],
    part: Annotated[str, typer.Argument(help="A category, such as Video_Games, or a release, such as ml-1m.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where the files go.", callback=require_folder)] = Path(
        "downloads"
    ),
    mirror: Annotated[
        str | None, typer.Option(help="Address that takes the place of the publisher's, with the same paths under it.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Download a public log: checked, and continued where an earlier attempt stopped."""
    show_progress()

    from peso.data.downloading import download as fetch
    from peso.data.downloading import unpack
    from peso.data.sources.addresses import addresses_of

    files = [fetch(one.url, folder, one.checksum_url) for one in addresses_of(log, part, mirror)]
    if log == "movielens":
        command = f"peso import movielens {unpack(files[0])} --workspace W"
    else:
        command = f"peso import {log} {files[0]} --items {files[1]} --workspace W"
    if json:
        print_json({"files": [str(file) for file in files], "import": command})
        return
    for file in files:
        typer.echo(f"{file}  {file.stat().st_size:,} bytes")
    typer.echo(f"next: {command}")
