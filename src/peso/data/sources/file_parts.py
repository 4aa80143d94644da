"""Files in parts that can be read alone, each with the number of its first line: what several readers share out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peso.data.sources.text_chunks import BYTE_ORDER_MARK, CHUNK_BYTES, TextChunk, is_compressed, opened, text_chunks
from peso.errors import DataError


@dataclass(frozen=True)
class FilePart:
    """Whole records of one file.

    Attributes:
        path: the file.
        start: what stands before: bytes of a text, rows of a Parquet file.
        length: of the part, counted alike; None for the whole file, however long.
        first_line: number of its first line (or row) in the file, counted from 1.
    """

    path: Path
    start: int = 0
    length: int | None = None
    first_line: int = 1


def text_parts(path: Path, quote: bytes = b"", chunk_bytes: int = CHUNK_BYTES) -> list[FilePart]:
    """The chunks of `text_chunks` without what they hold; a compressed file, which must be unpacked, is one part.

    Args:
        path: see there, as for the others.
        quote: of records that may hold line breaks.
        chunk_bytes: aimed size.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    whole = FilePart(path)
    if is_compressed(path):
        return [whole]
    with opened(path) as file:
        start = len(BYTE_ORDER_MARK) if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else 0
    parts = []
    for chunk in text_chunks(path, quote, chunk_bytes):
        parts.append(FilePart(path, start, len(chunk.data), chunk.first_line))
        start += len(chunk.data)
    return parts if len(parts) > 1 else [whole]


def chunks_of(part: FilePart, quote: bytes = b"") -> Iterator[TextChunk]:
    """What a part of a text holds.

    Args:
        part: one of `text_parts`.
        quote: as it was given there.

    Raises:
        DataError: the file is missing, cannot be read, is damaged, or was cut off meanwhile.
    """
    if part.length is None:
        yield from text_chunks(part.path, quote)
        return
    with opened(part.path) as file:
        file.seek(part.start)
        data = file.read(part.length)
    if len(data) < part.length:
        raise DataError(f"{part.path}: was changed while it was read; import it again.")
    yield TextChunk(data, part.first_line)


def first_line_of(path: Path) -> TextChunk:
    """The first line of a text that is not compressed.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    with opened(path) as file:
        return TextChunk(file.readline().removeprefix(BYTE_ORDER_MARK), 1)
