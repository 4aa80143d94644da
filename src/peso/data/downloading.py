"""Files from the web, whole and checked: a broken connection goes on where it stopped, and nothing is taken on trust.

What has arrived of a file stands beside it as `NAME.part`, with what names its version on the server in
`NAME.part.json`; the file itself appears in one step once it is complete and checked. Its SHA-256 is then added to
`SHA256SUMS` in the same folder (the format of `sha256sum --check`), and holds for every later call.
"""

import gzip
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from peso.errors import DataError
from peso.files import write_text

log = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
ATTEMPTS = 5
"""Connections without a single new byte before a download is given up."""
TIMEOUT_SECONDS = 60
_CHUNK_BYTES = 1 << 20
_BYTES_PER_LOG = 1 << 28


def download(url: str, folder: Path, checksum_url: str | None = None) -> Path:
    """Brings one file, or what is still missing of it.

    Args:
        url: http or https; its last part names the file.
        folder: where it goes; created when missing.
        checksum_url: a page with the file's MD5, where the publisher has one.

    Returns:
        The file. One that is there already is read and compared with its SHA-256, and nothing is downloaded.

    Raises:
        DataError: the server does not have it or does not answer, or what came is not what was published.
    """
    path = folder / url.rsplit("/", 1)[-1]
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _check_known(path)
        return path
    part = path.with_name(f"{path.name}.part")
    _fetch(url, part)
    if checksum_url is not None:
        _check_published(url, checksum_url, part)
    _check_packed(url, path.name, part)
    _record(folder, path.name, _hash_of(part, "sha256"))
    os.replace(part, path)
    _version_file(part).unlink(missing_ok=True)
    return path


def unpack(archive: Path) -> Path:
    """Unpacks a zip archive beside itself.

    Returns:
        The one folder in it, or a folder of the archive's name.

    Raises:
        DataError: it holds nothing.
    """
    with zipfile.ZipFile(archive) as members:
        tops = {name.split("/", 1)[0] for name in members.namelist()}
        if not tops:
            raise DataError(f"{archive} is an empty archive; remove it and download it again.")
        is_one_folder = len(tops) == 1 and all("/" in name for name in members.namelist())
        members.extractall(archive.parent if is_one_folder else archive.with_suffix(""))
    return archive.parent / tops.pop() if is_one_folder else archive.with_suffix("")


def _fetch(url: str, part: Path) -> None:
    failures = 0
    while True:
        before = _size_of(part)
        try:
            if _receive(url, part):
                return
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise DataError(f"{url} answers {error.code} ({error.reason}); check the name, or --mirror.") from None
            if error.headers.get("Content-Range") == f"bytes */{before}":
                return  # all of it had arrived already
            part.unlink(missing_ok=True)  # longer than the file there: another version
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            log.info("%s: %s after %d bytes; trying again", url, reason, _size_of(part))
            if failures + 1 == ATTEMPTS:
                raise DataError(
                    f"{url} cannot be read ({reason}); what has arrived is kept, so repeat the command to go on."
                ) from None
        failures = 0 if _size_of(part) > before else failures + 1
        if failures == ATTEMPTS:
            raise DataError(f"{url} sends nothing more; what has arrived is kept, so repeat the command later.")
        time.sleep(0.1 * failures)


def _receive(url: str, part: Path) -> bool:
    """One connection; whether the file is complete after it."""
    version = _known_version(part)
    start = _size_of(part) if version else 0
    request = urllib.request.Request(url, headers=_headers(start, version))
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        goes_on = start > 0 and response.status == http.client.PARTIAL_CONTENT
        length = response.headers.get("Content-Length")
        whole = None if length is None else int(length) + (start if goes_on else 0)
        _version_file(part).write_text(json.dumps(_version_of(response.headers)), encoding="utf-8")
        with part.open("ab" if goes_on else "wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                if file.tell() // _BYTES_PER_LOG != (file.tell() - len(chunk)) // _BYTES_PER_LOG:
                    log.info("%s: %d of %s MB", part.name, file.tell() >> 20, "?" if whole is None else whole >> 20)
            file.flush()
            os.fsync(file.fileno())
    return whole is None or _size_of(part) == whole


def _headers(start: int, version: str | None) -> dict[str, str]:
    plain = {"User-Agent": "peso", "Accept-Encoding": "identity"}
    return plain | ({"Range": f"bytes={start}-", "If-Range": version} if start and version else {})


def _version_of(headers: Mapping[str, str]) -> str | None:
    """What tells this version of the file from others: a strong ETag, or the time of its last change."""
    tag = headers.get("ETag")
    return tag if tag is not None and not tag.startswith("W/") else headers.get("Last-Modified")


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _known_version(part: Path) -> str | None:
    try:
        version = json.loads(_version_file(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return version if isinstance(version, str) else None


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _hash_of(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def _check_published(url: str, checksum_url: str, part: Path) -> None:
    try:
        request = urllib.request.Request(checksum_url, headers=_headers(0, None))
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            text = response.read(4096).decode("utf-8", errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"the checksum {checksum_url} cannot be read ({error}); repeat the command later.") from None
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if found is None:
        raise DataError(f"{checksum_url} holds no MD5; check --mirror.")
    if _hash_of(part, "md5") != found[0].lower():
        _forget(part)
        raise DataError(f"{url} arrived with another MD5 than {checksum_url} says; repeat the command.")


def _check_packed(url: str, name: str, part: Path) -> None:
    """Reads packed files to their end, where their own checksums stand."""
    try:
        if name.endswith(".gz"):
            with gzip.open(part, "rb") as file:
                shutil.copyfileobj(file, _Nowhere(), _CHUNK_BYTES)
        elif name.endswith(".zip"):
            with zipfile.ZipFile(part) as members:
                broken = members.testzip()
            if broken is not None:
                raise zipfile.BadZipFile(f"{broken} is damaged")
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        _forget(part)
        raise DataError(f"{url} arrived damaged ({error}); repeat the command.") from None


class _Nowhere:
    def write(self, chunk: bytes) -> int:
        return len(chunk)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _sums(folder: Path) -> dict[str, str]:
    file = folder / SUMS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    pairs = [line.split("  ", 1) for line in lines if "  " in line]
    return {name: digest for digest, name in pairs}


def _record(folder: Path, name: str, digest: str) -> None:
    sums = _sums(folder) | {name: digest}
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def _check_known(path: Path) -> None:
    known = _sums(path.parent).get(path.name)
    if known is None:
        raise DataError(f"{path} exists and was not downloaded by peso; move it away, or import it as it is.")
    if _hash_of(path, "sha256") != known:
        raise DataError(f"{path} is not what was downloaded (see {path.parent / SUMS}); remove it and repeat.")
