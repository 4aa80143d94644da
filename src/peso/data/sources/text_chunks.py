"""Text files of any size in chunks of whole records: plain, gzip or Zstandard."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from peso.errors import DataError

CHUNK_BYTES = 32 * 2**20
_COMPRESSED = (".gz", ".zst")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class TextChunk:
    """Whole records of a file.

    Attributes:
        data: ends with a line break, the last chunk of a file perhaps not.
        first_line: number of its first line in the file, counted from 1.
    """

    data: bytes
    first_line: int


def plain_suffix(path: Path) -> str:
    """The suffix that tells the layout, in lower case: `.csv` of `log.csv.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_compressed(path: Path) -> bool:
    """Whether a text must be unpacked from its beginning."""
    return path.suffix.lower() in _COMPRESSED


def text_chunks(path: Path, quote: bytes = b"", chunk_bytes: int = CHUNK_BYTES) -> Iterator[TextChunk]:
    """Reads a file from its beginning.

    Args:
        path: `.gz` and `.zst` files are unpacked on the way.
        quote: a record goes on behind a line break that stands between two of these; empty where a line is a record.
        chunk_bytes: aimed size; a longer record makes a longer chunk, up to twice the size.

    Raises:
        DataError: the file is missing, cannot be read, or is damaged.
    """
    rest, line, is_start = b"", 1, True
    with opened(path) as file:
        while True:
            read = file.read(chunk_bytes)
            if is_start:
                read, is_start = read.removeprefix(BYTE_ORDER_MARK), False
            data = rest + read
            if not read:
                break
            end = _end_of_last_record(data, quote)
            if not end and len(data) < 2 * chunk_bytes:
                rest = data
                continue
            end = end or data.rfind(b"\n") + 1 or len(data)
            yield TextChunk(data[:end], line)
            line += data.count(b"\n", 0, end)
            rest = data[end:]
    if rest:
        yield TextChunk(rest, line)


def _end_of_last_record(data: bytes, quote: bytes) -> int:
    """Behind the last line break that an even number of quotes precedes; 0 where there is none."""
    end = data.rfind(b"\n") + 1
    if not quote:
        return end
    num_quotes = data.count(quote, 0, end)
    while end and num_quotes % 2:
        earlier = data.rfind(b"\n", 0, end - 1) + 1
        num_quotes -= data.count(quote, earlier, end)
        end = earlier
    return end


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file as it was before it was compressed.

    Raises:
        DataError: it is missing, cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as raw:
            suffix = path.suffix.lower()
            if suffix == ".gz":
                yield cast(BinaryIO, gzip.GzipFile(fileobj=raw))
            elif suffix == ".zst":
                yield cast(BinaryIO, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
            else:
                yield raw
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(f"{path}: damaged {path.suffix[1:]} data ({error}); copy or download it again.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path.") from None
