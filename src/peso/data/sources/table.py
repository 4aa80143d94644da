"""Your own log: a table of any usual layout, with columns of any names."""

from dataclasses import replace
from pathlib import Path

from peso.data.sources.bad_rows import Rejects
from peso.data.sources.files import DELIMITED, JSON_LINES, PARQUET, log_files
from peso.data.sources.log_reader import LogReader, ReadLog, read_log
from peso.data.sources.parquet_rows import holds_dates
from peso.data.sources.raw_log import RawLog, TableLayout
from peso.data.sources.text_chunks import plain_suffix
from peso.data.sources.times import TimeFormat
from peso.errors import DataError

_SUFFIXES = (*DELIMITED, *JSON_LINES, *PARQUET)


def read_table(
    path: Path, layout: TableLayout, rejects: Rejects, read: LogReader = read_log
) -> tuple[ReadLog, list[Path]]:
    """Reads a file, or every file of a folder in the order of their names.

    Args:
        path: `.csv`, `.tsv`, `.jsonl`, `.json` (JSON lines) or `.parquet`; text also as `.gz` or `.zst`.
        layout: how it is written.
        rejects: takes bad rows.
        read: reads the rows, here or on many machines.

    Returns:
        The log, and the files it was read from.

    Raises:
        DataError: a file is missing or damaged, lacks a column, the layout does not fit, or there are bad rows that
            must not be set aside.
    """
    _check_layout(layout)
    files = log_files(path, _SUFFIXES)
    _check_text_options(layout, files)
    dated = [file for file in files if plain_suffix(file) in PARQUET and holds_dates(file, layout.columns)]
    if dated:
        if len(dated) != len(files):
            raise DataError(f"{dated[0]} holds dates, other files do not; write the times of all files alike.")
        if layout.time_format is not None:
            raise DataError(f"{dated[0]} holds dates, which need no {_time_option(layout.time_format)}; leave it out.")
        layout = replace(layout, time_format=TimeFormat("us", None))
    return read(RawLog(tuple(files), layout), rejects), files


def _check_layout(layout: TableLayout) -> None:
    separator, names = layout.separator, layout.names or ()
    if separator is not None and (len(separator) != 1 or not separator.isascii() or separator in '"\r\n'):
        raise DataError(f"--separator {separator!r} is not one plain character, such as ; or |.")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"--names has the column {repeated!r} twice; rename one.")
    if layout.time_format is not None and layout.columns.time is None:
        option = _time_option(layout.time_format)
        raise DataError(f"{option} says how times are written, but no --time says where; give both or neither.")


def _check_text_options(layout: TableLayout, files: list[Path]) -> None:
    if any(plain_suffix(file) in DELIMITED for file in files):
        return
    for option, value in (("--separator", layout.separator), ("--names", layout.names)):
        if value is not None:
            raise DataError(
                f"{option} is for text tables ({', '.join(DELIMITED)}), and {files[0]} is none; leave it out."
            )


def _time_option(time_format: TimeFormat) -> str:
    return "--time-format" if time_format.unit is None else "--time-unit"
