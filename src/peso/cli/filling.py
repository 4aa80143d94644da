"""What every import ends with: a workspace is filled, and its blocks are shown."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from peso.cli.options import print_json, print_table

if TYPE_CHECKING:
    from peso.data.imported import ImportedData


def fill(workspace: Path, imported: "ImportedData", as_json: bool) -> None:
    """Writes imported data into a workspace, and says what is in it."""
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
