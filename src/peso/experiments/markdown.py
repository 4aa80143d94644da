"""Tables in Markdown."""

from collections.abc import Sequence

Cell = str | float | int | None


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """The lines of a table.

    Args:
        columns: headings.
        rows: cells in the order of the columns; numbers are formatted by `cell_text`.
    """
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(map(cell_text, row)) + " |" for row in rows]


def cell_text(value: Cell) -> str:
    """A number with as many digits as tell results apart: four below 1, three above; "-" for a missing one."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:.4f}" if isinstance(value, float) and abs(value) < 1 else str(round(value, 3))
