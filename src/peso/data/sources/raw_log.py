"""A log before it is read: its files, how they are written, and the parts in which several readers may share it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peso.data.sources.delimited import QUOTE, read_delimited
from peso.data.sources.file_parts import FilePart, text_parts
from peso.data.sources.files import DELIMITED, JSON_LINES, PARQUET
from peso.data.sources.json_lines import read_json_lines
from peso.data.sources.parquet_rows import ROWS_PER_BATCH, parquet_parts, read_parquet_rows
from peso.data.sources.row_batch import Columns, RowBatch
from peso.data.sources.text_chunks import CHUNK_BYTES, plain_suffix
from peso.data.sources.times import TimeFormat
from peso.errors import DataError


@dataclass(frozen=True)
class TableLayout:
    """How a table is written.

    Attributes:
        columns: which hold what.
        time_format: None to guess it from the first time.
        separator: of text tables, None for a comma and, in `.tsv` files, a tab.
        names: of the columns of text tables without a header line, None where they have one.
        joined: several bytes that stand for the separator, such as `::`; empty where it is itself there.
    """

    columns: Columns
    time_format: TimeFormat | None = None
    separator: str | None = None
    names: tuple[str, ...] | None = None
    joined: bytes = b""


@dataclass(frozen=True)
class PartSizes:
    """How large parts are.

    Attributes:
        num_bytes: aimed at, of texts.
        num_rows: of Parquet files.
    """

    num_bytes: int = CHUNK_BYTES
    num_rows: int = ROWS_PER_BATCH


@dataclass(frozen=True)
class RawLog:
    """A log that is still to be read.

    Attributes:
        files: in the order of the log: JSON lines and Parquet files by their suffix, text tables by any other.
        layout: of all of them.
    """

    files: tuple[Path, ...]
    layout: TableLayout

    def batches(self) -> Iterator[RowBatch]:
        """All rows, in order.

        Raises:
            DataError: a file is missing or damaged, or lacks a column.
        """
        for file in self.files:
            yield from self.batches_of(FilePart(file))

    def batches_of(self, part: FilePart) -> Iterator[RowBatch]:
        """The rows of one part, in order; the batches are those of the whole file.

        Raises:
            DataError: the file is missing or damaged, or lacks a column.
        """
        layout, suffix = self.layout, plain_suffix(part.path)
        if suffix in PARQUET:
            return read_parquet_rows(part, layout.columns)
        if suffix in JSON_LINES:
            return read_json_lines(part, layout.columns)
        names = None if layout.names is None else list(layout.names)
        separator = layout.separator or DELIMITED[suffix]
        return read_delimited(part, layout.columns, separator, names, layout.joined)

    def parts(self, sizes: PartSizes) -> list[FilePart]:
        """The log in parts, in order; texts are read once, to find where their records end and to count their lines."""
        return [part for file in self.files for part in _parts_of(file, sizes)]


def _parts_of(file: Path, sizes: PartSizes) -> list[FilePart]:
    suffix = plain_suffix(file)
    try:
        if suffix in PARQUET:
            return parquet_parts(file, sizes.num_rows)
        return text_parts(file, b"" if suffix in JSON_LINES else QUOTE, sizes.num_bytes)
    except DataError:  # said by whoever reads it, once what stands before has been read
        return [FilePart(file)]
