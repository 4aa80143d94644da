"""Where public logs are found.

Sources: https://amazon-reviews-2023.github.io, https://nijianmo.github.io/amazon, https://grouplens.org/datasets/movielens.
"""

from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlsplit

from peso.errors import ConfigError
from peso.types import PublicLog

AMAZON = "https://mcauleylab.ucsd.edu/public_datasets/data"
MOVIELENS = "https://files.grouplens.org/datasets/movielens"
MOVIELENS_RELEASES = ("ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small")
_AMAZON_FILES = {
    "amazon-2018": ("amazon_v2/categoryFiles/{}.json.gz", "amazon_v2/metaFiles2/meta_{}.json.gz"),
    "amazon-2023": (
        "amazon_2023/raw/review_categories/{}.jsonl.gz",
        "amazon_2023/raw/meta_categories/meta_{}.jsonl.gz",
    ),
}


@dataclass(frozen=True)
class Address:
    """One file.

    Attributes:
        url: of the file.
        checksum_url: of its MD5; None where none is published.
    """

    url: str
    checksum_url: str | None = None


def addresses_of(log: str, part: str, mirror: str | None = None) -> list[Address]:
    """The files of a public log: interactions first, then items, or one archive.

    Args:
        log: a `PublicLog`.
        part: a category such as `Video_Games`, or a release such as `ml-1m`.
        mirror: takes the place of the publisher's address, with the same paths under it.

    Raises:
        ConfigError: there is no such log or release, the part cannot be a name, or the mirror is no web address.
    """
    if log not in get_args(PublicLog):
        raise ConfigError(f"there is no public log {log!r}; choose one of {', '.join(get_args(PublicLog))}.")
    if log == "movielens":
        if part not in MOVIELENS_RELEASES:
            raise ConfigError(f"there is no MovieLens release {part!r}; choose one of {', '.join(MOVIELENS_RELEASES)}.")
        url = f"{_base(mirror, MOVIELENS)}/{part}.zip"
        return [Address(url, f"{url}.md5")]
    if not part.replace("_", "").isalnum():
        raise ConfigError(f"{part!r} is no category; write it as the publisher does, such as Video_Games.")
    return [Address(f"{_base(mirror, AMAZON)}/{path.format(part)}") for path in _AMAZON_FILES[log]]


def _base(mirror: str | None, published: str) -> str:
    if mirror is None:
        return published
    try:
        parts = urlsplit(mirror)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigError(f"--mirror {mirror!r} is no web address; write it in full, such as {published}.")
    return mirror.rstrip("/")
