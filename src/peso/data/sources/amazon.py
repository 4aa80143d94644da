"""Amazon Reviews of 2014 and 2018 (one layout) and of 2023."""

from pathlib import Path
from typing import Literal

from peso.data.sources.bad_rows import Rejects
from peso.data.sources.files import JSON_LINES, log_files
from peso.data.sources.log_reader import LogReader, ReadLog, read_log
from peso.data.sources.raw_log import RawLog, TableLayout
from peso.data.sources.row_batch import Columns
from peso.data.sources.times import TimeFormat

AmazonRelease = Literal["2018", "2023"]

_COLUMNS = {
    "2018": Columns("reviewerID", "asin", "unixReviewTime", "overall"),
    "2023": Columns("user_id", "parent_asin", "timestamp", "rating"),
}
_TIMES = {"2018": TimeFormat("s", None), "2023": TimeFormat("ms", None)}


def read_amazon_reviews(
    path: Path, release: AmazonRelease, rejects: Rejects, read: LogReader = read_log
) -> tuple[ReadLog, list[Path]]:
    """Reads reviews as interactions.

    Args:
        path: JSON lines, perhaps compressed, or a folder of such files.
        release: its layout; that of 2014 is the one of 2018.
        rejects: takes bad rows.
        read: reads the rows, here or on many machines.

    Returns:
        The log, and the files it was read from. An item of 2023 is a `parent_asin`, all variants of a product.

    Raises:
        DataError: a file is missing or damaged, or there are bad rows that must not be set aside.
    """
    files = log_files(path, JSON_LINES)
    return read(RawLog(tuple(files), TableLayout(_COLUMNS[release], _TIMES[release])), rejects), files
