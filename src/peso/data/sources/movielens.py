"""MovieLens in the three layouts of its releases: tabs (100K), `::` (1M and 10M), commas (20M and later)."""

import csv
from dataclasses import dataclass
from pathlib import Path

from peso.data.item_texts import ItemText, tidy
from peso.data.sources.bad_rows import Rejects
from peso.data.sources.log_reader import LogReader, ReadLog, read_log
from peso.data.sources.raw_log import RawLog, TableLayout
from peso.data.sources.row_batch import Columns
from peso.data.sources.times import TimeFormat
from peso.errors import DataError

_COLUMNS = Columns("userId", "movieId", "timestamp", "rating")
_NAMES = ("userId", "movieId", "rating", "timestamp")
_GENRES_OF_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    ratings: str
    movies: str
    separator: str
    joined: bytes
    has_header: bool
    encoding: str


_LAYOUTS = (
    _Layout("ratings.csv", "movies.csv", ",", b"", True, "utf-8"),
    _Layout("ratings.dat", "movies.dat", "\t", b"::", False, "latin-1"),
    _Layout("u.data", "u.item", "\t", b"", False, "latin-1"),
)


def read_movielens(
    folder: Path, rejects: Rejects, read: LogReader = read_log
) -> tuple[ReadLog, dict[str, ItemText], list[Path]]:
    """Reads a release.

    Args:
        folder: as unpacked: holds `ratings.csv`, `ratings.dat` or `u.data`, and the movies beside it.
        rejects: takes bad rows.
        read: reads the rows, here or on many machines.

    Returns:
        The log, what is written about the movies (title; genres as text and categories), and the files read.

    Raises:
        DataError: a file is missing or damaged, or there are bad rows that must not be set aside.
    """
    layout = next((layout for layout in _LAYOUTS if (folder / layout.ratings).is_file()), None)
    if layout is None:
        raise DataError(f"{folder} holds no ratings.csv, ratings.dat or u.data; give the unpacked folder of a release.")
    ratings, movies = folder / layout.ratings, folder / layout.movies
    if not movies.is_file():
        raise DataError(
            f"{folder} holds {layout.ratings} but no {layout.movies}, the titles; unpack the release again."
        )
    names = None if layout.has_header else _NAMES
    table = TableLayout(_COLUMNS, TimeFormat("s", None), layout.separator, names, layout.joined)
    return read(RawLog((ratings,), table), rejects), _movies(movies, layout), [ratings, movies]


def _movies(path: Path, layout: _Layout) -> dict[str, ItemText]:
    try:
        text = path.read_text(encoding=layout.encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); unpack the release again.") from None
    if layout.ratings == "u.data":
        rows = [_row_of_100k(line.split("|")) for line in text.splitlines() if line]
    elif layout.joined:
        rows = [line.split("::") for line in text.splitlines() if line]
    else:
        rows = list(csv.reader(text.splitlines()))[1:]
    items = {}
    for number, row in enumerate(rows, start=1 + layout.has_header):
        if len(row) < 3:
            raise DataError(f"{path} line {number}: expected movie, title and genres; unpack the release again.")
        genres = [] if row[2].startswith("(") else [tidy(genre) for genre in row[2].split("|") if genre]
        items[row[0]] = ItemText(tidy(row[1]), ", ".join(genres), genres)
    return items


def _row_of_100k(fields: list[str]) -> list[str]:
    flags = fields[-len(_GENRES_OF_100K) :]
    genres = [name for name, flag in zip(_GENRES_OF_100K, flags, strict=False) if flag == "1"]
    return [*fields[:2], "|".join(genres)] if len(fields) > len(_GENRES_OF_100K) else []
