"""Atomic writes and checksums: a reader sees the old file or the new one, never half of either.

Every write goes to a temporary sibling, is flushed to the disk, and is renamed over its destination; directories are
built beside their destination in the same way.
"""

import ctypes
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peso.errors import WorkspaceError

_TEMPORARY_PREFIX = ".tmp-"
_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux's renameat2."""


def _mode_of_new_files() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


_MODE_OF_NEW_FILES = _mode_of_new_files()  # asked once: the mask can only be read by changing it


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f"{_TEMPORARY_PREFIX}{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _finish(path: Path) -> None:
    """Flushes to the disk, and opens a file that a library wrote for its owner alone to whom new files are open."""
    if path.is_file():
        path.chmod(path.stat().st_mode | _MODE_OF_NEW_FILES)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path; on a clean exit the file written there replaces `path` in one step.

    Args:
        path: the destination; its parent is created when missing.

    Yields:
        A path beside the destination that does not exist yet. On an exception it is removed and `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path)
    try:
        yield temporary
        _finish(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yields an empty directory that becomes `path` in one step on a clean exit.

    Args:
        path: the destination; an existing directory there is replaced.

    Yields:
        The directory to fill. On an exception it is removed and `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_directory(finished: Path, path: Path) -> None:
    """Renames a directory to `path`, on the same disk, in one step; an existing directory there goes.

    Where the system cannot exchange two directories (only Linux can), there is a moment between two renames.

    Args:
        finished: whole; its files are flushed to the disk first.
        path: the destination.
    """
    for file in finished.rglob("*"):
        _finish(file)
    if not path.exists():
        os.replace(finished, path)
    else:
        staged, old = _temporary_sibling(path), _temporary_sibling(path)
        os.replace(finished, staged)  # under its own name nobody may find the old one after a kill
        if _exchange(staged, path):
            old = staged
        else:
            os.replace(path, old)
            try:
                os.replace(staged, path)
            except OSError:
                os.replace(old, path)
                os.replace(staged, finished)
                raise
        shutil.rmtree(old)
    _sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two paths of one disk in one step; False where the system has no way to."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    failed = renameat2(_HERE, os.fsencode(one.absolute()), _HERE, os.fsencode(other.absolute()), _EXCHANGE)
    return not failed  # a file system without it answers with an error and changes nothing


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Removes what interrupted writes left in `folder` (never a finished file).

    Args:
        folder: where to look.
        name: of the destination whose leftovers are meant, where others may be written at the same time; all if empty.
    """
    for leftover in folder.glob(f"{_TEMPORARY_PREFIX}{name}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, indented, keys in the order given, refusing NaN (which is not JSON)."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Reads a JSON file that peso wrote; a NaN, as older versions wrote for a mean over nothing, is None.

    Args:
        path: the file.
        what: what the file is, for the error message, such as "run result".

    Raises:
        WorkspaceError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise WorkspaceError(f"{what}: {path} does not exist; check the path or create it first.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"{what}: {path} is not valid JSON ({error}); restore or remove it.") from None


def sha256_of(*parts: bytes) -> str:
    """The SHA-256 of length-prefixed parts, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def hash_of_json(value: Any) -> str:
    """The SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return sha256_of(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
