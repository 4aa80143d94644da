"""Which files a log is made of, and what they were."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peso.data.sources.text_chunks import plain_suffix
from peso.errors import DataError

DELIMITED = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet",)
_READ_BYTES = 2**22


def log_files(path: Path, suffixes: Iterable[str]) -> list[Path]:
    """A file, or the files of a folder in the order of their names.

    Args:
        path: file or folder.
        suffixes: layouts that can be read, compression apart.

    Raises:
        DataError: there is no such file, or none that can be read.
    """
    known = list(suffixes)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and plain_suffix(file) in known)
        if not found:
            raise DataError(f"{path} holds no {', '.join(known)} file (.gz and .zst may follow); check the folder.")
        return found
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a file, or a folder of files.")
    if plain_suffix(path) not in known:
        raise DataError(f"{path}: only {', '.join(known)} files are read here (.gz and .zst may follow); convert it.")
    return [path]


def file_record(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file, as JSON values."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from None
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}
