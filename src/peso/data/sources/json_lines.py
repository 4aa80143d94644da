"""JSON objects, one per line: the fast way for chunks that are well formed, the careful way for any other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from peso.data.sources.bad_rows import BadRow
from peso.data.sources.file_parts import FilePart, chunks_of
from peso.data.sources.row_batch import ITEM, LINE, USER, Columns, RowBatch
from peso.data.sources.text_chunks import TextChunk

_NUM_CHARACTERS_KEPT = 1000
_LOOKS_LIKE_NO_ID = r"^[\[{]|^true$|^false$"


def read_json_lines(part: FilePart, columns: Columns) -> Iterator[RowBatch]:
    """Reads JSON lines.

    Args:
        part: of UTF-8 text, perhaps compressed.
        columns: keys wanted; others are ignored.

    Raises:
        DataError: the file is missing or damaged.
    """
    for chunk in chunks_of(part):
        yield _fast(part.path, chunk, columns) or _careful(part.path, chunk, columns)


def _fast(path: Path, chunk: TextChunk, columns: Columns) -> RowBatch | None:
    """None where the chunk is not well formed, its rows are not its lines, or an id may be no id."""
    parts = columns.by_part
    try:
        frame = pl.read_ndjson(chunk.data, schema=dict.fromkeys(parts.values(), pl.String))
    except pl.exceptions.PolarsError:
        return None
    if frame.height != chunk.data.count(b"\n") + (not chunk.data.endswith(b"\n")):
        return None
    frame = frame.select(pl.col(name).alias(part) for part, name in parts.items())
    if frame.select(pl.col(USER, ITEM).str.contains(_LOOKS_LIKE_NO_ID).any()).to_numpy().any():
        return None
    lines = pl.int_range(chunk.first_line, chunk.first_line + frame.height, dtype=pl.Int64, eager=True)
    return RowBatch(path, frame.insert_column(0, lines.alias(LINE)), [])


def _careful(path: Path, chunk: TextChunk, columns: Columns) -> RowBatch:
    rows: list[list[int | str | None]] = []
    bad: list[BadRow] = []
    for number, line in enumerate(chunk.data.split(b"\n"), start=chunk.first_line):
        if not line.strip():
            continue
        try:
            rows.append([number, *_values(line, columns)])
        except ValueError as error:
            bad.append(BadRow(path, number, str(error), line[:_NUM_CHARACTERS_KEPT].decode("utf-8", errors="replace")))
    schema = {LINE: pl.Int64} | dict.fromkeys(columns.by_part, pl.String)
    return RowBatch(path, pl.DataFrame(rows, schema=schema, orient="row"), bad)


def parse_object(line: bytes) -> dict[str, Any]:
    """One line's object, its numbers as they are written.

    Raises:
        ValueError: it is none; the message is a clause.
    """
    try:
        value = json.loads(line.decode("utf-8"), parse_int=str, parse_float=str)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def _values(line: bytes, columns: Columns) -> list[str | None]:
    value = parse_object(line)
    values = []
    for part, name in columns.by_part.items():
        field = value.get(name)
        if field is not None and not isinstance(field, str):
            raise ValueError(f"has a {part} that is neither text nor a number")
        try:
            (field or "").encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"has a {part} that is not UTF-8 text") from None
        values.append(field)
    return values
