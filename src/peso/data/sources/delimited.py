"""Tables of separated values: the fast way for chunks that are well formed, the careful way for any other."""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from peso.data.sources.bad_rows import BadRow
from peso.data.sources.file_parts import FilePart, chunks_of, first_line_of
from peso.data.sources.row_batch import LINE, Columns, RowBatch
from peso.data.sources.text_chunks import TextChunk
from peso.errors import DataError

QUOTE = b'"'
_NUM_CHARACTERS_KEPT = 1000


def read_delimited(
    part: FilePart, columns: Columns, separator: str, header: list[str] | None = None, joined: bytes = b""
) -> Iterator[RowBatch]:
    """Reads a table with quoted fields as in RFC 4180.

    Args:
        part: of UTF-8 text, perhaps compressed; the file's header line counts for all of its parts.
        columns: wanted.
        separator: one character.
        header: names of the columns; None where the first line has them.
        joined: several bytes that stand for the separator in the file, such as `::`; empty where it is itself there.

    Raises:
        DataError: the file is missing or damaged, or lacks a wanted column.
    """
    path = part.path
    if header is None and part.first_line > 1:
        header, _ = _header(path, first_line_of(path), separator)
    for chunk in chunks_of(part, QUOTE):
        data = chunk.data.replace(joined, separator.encode()) if joined else chunk.data
        rows = TextChunk(data, chunk.first_line)
        if header is None:
            header, rows = _header(path, rows, separator)
        _check_header(path, header, columns)
        if rows.data:
            yield _fast(path, rows, header, separator, columns) or _careful(path, rows, header, separator, columns)
    if header is None:
        raise DataError(f"{path} is empty; give a table with a header line.")


def _header(path: Path, chunk: TextChunk, separator: str) -> tuple[list[str], TextChunk]:
    line, _, rest = chunk.data.partition(b"\n")
    try:
        names = next(csv.reader([line.decode("utf-8").rstrip("\r")], delimiter=separator, strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: the header line cannot be read ({error}); write it as UTF-8 text.") from None
    names = [name.strip() for name in names]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{path}: the header names the column {repeated!r} twice; rename one.")
    return names, TextChunk(rest, chunk.first_line + 1)


def _check_header(path: Path, header: list[str], columns: Columns) -> None:
    missing = next((name for name in columns.by_part.values() if name not in header), None)
    if missing is not None:
        raise DataError(
            f"{path} has the columns {', '.join(map(repr, header[:20]))}, but no {missing!r}; "
            "say which hold user, item, time and rating."
        )


def _fast(path: Path, chunk: TextChunk, header: list[str], separator: str, columns: Columns) -> RowBatch | None:
    """None where the chunk is not well formed, or its rows are not its lines."""
    try:
        frame = pl.read_csv(chunk.data, has_header=False, separator=separator, schema=dict.fromkeys(header, pl.String))
    except pl.exceptions.PolarsError:
        return None
    num_lines = chunk.data.count(b"\n") + (not chunk.data.endswith(b"\n"))
    if frame.height != num_lines or b"\n\n" in chunk.data or b"\n\r\n" in chunk.data:
        return None
    lines = pl.int_range(chunk.first_line, chunk.first_line + frame.height, dtype=pl.Int64, eager=True)
    parts = [frame[name].alias(part) for part, name in columns.by_part.items()]
    return RowBatch(path, pl.DataFrame([lines.alias(LINE), *parts]), [])


def _careful(path: Path, chunk: TextChunk, header: list[str], separator: str, columns: Columns) -> RowBatch:
    """Record by record; behind one that cannot be read, the next line begins another."""
    lines = chunk.data.decode("utf-8", errors="surrogateescape").split("\n")
    places = [header.index(name) for name in columns.by_part.values()]
    rows: list[list[int | str | None]] = []
    bad: list[BadRow] = []
    start = 0
    with _fields_of_any_length():
        while start < len(lines):
            rest = (lines[number] + "\n" for number in range(start, len(lines)))  # no copy: there may be many bad rows
            reader = csv.reader(rest, delimiter=separator, strict=True)
            offset = start
            reason = ""
            while not reason and start < len(lines):
                try:
                    fields = next(reader)
                    reason = _fault(fields, len(header))
                except StopIteration:
                    break
                except csv.Error as error:
                    reason = f"is not a row of separated values ({error})"
                if reason:
                    bad.append(BadRow(path, chunk.first_line + start, reason, _readable(lines[start])))
                    start += 1
                    continue
                if fields:
                    values = [fields[place] or None if place < len(fields) else None for place in places]
                    rows.append([chunk.first_line + start, *values])
                start = offset + reader.line_num
            else:
                continue
            break
    schema = {LINE: pl.Int64} | dict.fromkeys(columns.by_part, pl.String)
    return RowBatch(path, pl.DataFrame(rows, schema=schema, orient="row"), bad)


def _fault(fields: list[str], num_columns: int) -> str:
    if len(fields) > num_columns:
        return f"has {len(fields)} fields, the header {num_columns}"
    try:
        "".join(fields).encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    return ""


def _readable(line: str) -> str:
    return line[:_NUM_CHARACTERS_KEPT].encode("utf-8", errors="replace").decode("utf-8")


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
