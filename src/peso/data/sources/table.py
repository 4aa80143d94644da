"""Your own log: a table of any usual layout, with columns of any names."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peso.data.sources.bad_rows import Rejects
from peso.data.sources.delimited import read_delimited
from peso.data.sources.files import DELIMITED, JSON_LINES, PARQUET, log_files
from peso.data.sources.json_lines import read_json_lines
from peso.data.sources.log_reader import ReadLog, read_log
from peso.data.sources.parquet_rows import holds_dates, read_parquet_rows
from peso.data.sources.row_batch import Columns, RowBatch
from peso.data.sources.text_chunks import plain_suffix
from peso.data.sources.times import TimeFormat
from peso.errors import DataError

_SUFFIXES = (*DELIMITED, *JSON_LINES, *PARQUET)


@dataclass(frozen=True)
class TableLayout:
    """How a table is written.

    Attributes:
        columns: which hold what.
        time_format: None to guess it from the first time.
        separator: of `.csv` and `.tsv` files, None for a comma and a tab.
        names: of the columns of `.csv` and `.tsv` files without a header line, None where they have one.
    """

    columns: Columns
    time_format: TimeFormat | None = None
    separator: str | None = None
    names: tuple[str, ...] | None = None


def read_table(path: Path, layout: TableLayout, rejects: Rejects) -> tuple[ReadLog, list[Path]]:
    """Reads a file, or every file of a folder in the order of their names.

    Args:
        path: `.csv`, `.tsv`, `.jsonl`, `.json` (JSON lines) or `.parquet`; text also as `.gz` or `.zst`.
        layout: how it is written.
        rejects: takes bad rows.

    Returns:
        The log, and the files it was read from.

    Raises:
        DataError: a file is missing or damaged, lacks a column, or there are bad rows that must not be set aside.
    """
    separator = layout.separator
    if separator is not None and (len(separator) != 1 or not separator.isascii() or separator in '"\r\n'):
        raise DataError(f"--separator {separator!r} is not one plain character, such as ; or |.")
    files = log_files(path, _SUFFIXES)
    time_format = layout.time_format
    dated = [file for file in files if plain_suffix(file) in PARQUET and holds_dates(file, layout.columns)]
    if dated:
        if len(dated) != len(files):
            raise DataError(f"{dated[0]} holds dates, other files do not; write the times of all files alike.")
        time_format = TimeFormat("us", None)
    return read_log(_batches(files, layout), rejects, time_format), files


def _batches(files: list[Path], layout: TableLayout) -> Iterator[RowBatch]:
    for file in files:
        suffix = plain_suffix(file)
        if suffix in PARQUET:
            yield from read_parquet_rows(file, layout.columns)
        elif suffix in JSON_LINES:
            yield from read_json_lines(file, layout.columns)
        else:
            names = None if layout.names is None else list(layout.names)
            yield from read_delimited(file, layout.columns, layout.separator or DELIMITED[suffix], names)
