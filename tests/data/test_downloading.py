"""Downloads from a server of our own: broken off, changed, damaged, refused, and gone on with."""

import gzip
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from commands import assert_one_sentence, output_of, peso
from peso.data import downloading
from peso.data.downloading import SUMS, download, unpack
from peso.data.sources.addresses import addresses_of
from peso.errors import ConfigError, DataError

CONTENT = bytes(range(256)) * 4000


@dataclass
class Site:
    """What the server has, and what it did."""

    files: dict[str, bytes] = field(default_factory=dict)
    breaks_after: list[int] = field(default_factory=list)
    requests: list[tuple[str | None, int]] = field(default_factory=list)
    address: str = ""

    def tag(self, path: str) -> str:
        return f'"{hashlib.md5(self.files[path]).hexdigest()}"'


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            asked, start, status = self.headers.get("Range"), 0, 200
            if asked is not None and self.headers.get("If-Range") == state.tag(self.path):
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                status = 206 if start < len(content) else 416
            state.requests.append((asked, status))
            self.send_response(status)
            if status == 416:
                self.send_header("Content-Range", f"bytes */{len(content)}")
                start = len(content)
            self.send_header("ETag", state.tag(self.path))
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + state.breaks_after.pop(0) if state.breaks_after else len(content)
            self.wfile.write(content[start:end])
            self.close_connection = True

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


def test_a_broken_connection_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.files["/log.bin"], site.breaks_after = CONTENT, [300_000, 500_000]
    path = download(f"{site.address}/log.bin", tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert site.requests == [(None, 200), ("bytes=300000-", 206), ("bytes=800000-", 206)]
    assert (path.parent / SUMS).read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  log.bin\n"
    assert sorted(file.name for file in path.parent.iterdir()) == [SUMS, "log.bin"]
    assert download(f"{site.address}/log.bin", tmp_path / "new") == path
    assert len(site.requests) == 3


def test_an_attempt_given_up_is_gone_on_with_later(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "ATTEMPTS", 2)
    site.files["/log.bin"], site.breaks_after = CONTENT, [1000, 0, 0]
    with pytest.raises(DataError, match="what has arrived is kept"):
        download(f"{site.address}/log.bin", tmp_path)
    assert (tmp_path / "log.bin.part").stat().st_size == 1000 and not (tmp_path / "log.bin").exists()
    assert download(f"{site.address}/log.bin", tmp_path).read_bytes() == CONTENT
    assert site.requests[-1] == ("bytes=1000-", 206)


def test_a_file_that_changed_meanwhile_is_read_from_the_start(site: Site, tmp_path: Path) -> None:
    site.files["/log.bin"] = CONTENT
    (tmp_path / "log.bin.part").write_bytes(b"of an older version")
    (tmp_path / "log.bin.part.json").write_text('"\\"older\\""')
    assert download(f"{site.address}/log.bin", tmp_path).read_bytes() == CONTENT
    assert site.requests == [("bytes=19-", 200)]


def test_a_file_that_had_arrived_whole_is_not_read_again(site: Site, tmp_path: Path) -> None:
    site.files["/log.bin"] = CONTENT
    (tmp_path / "log.bin.part").write_bytes(CONTENT)
    (tmp_path / "log.bin.part.json").write_text(f'"\\"{hashlib.md5(CONTENT).hexdigest()}\\""')
    assert download(f"{site.address}/log.bin", tmp_path).read_bytes() == CONTENT
    assert [status for _, status in site.requests] == [416]


def test_published_checksums_are_held_to(site: Site, tmp_path: Path) -> None:
    site.files["/a.bin"] = CONTENT
    site.files["/good"] = f"MD5 (a.bin) = {hashlib.md5(CONTENT).hexdigest()}\n".encode()
    site.files["/bad"], site.files["/none"] = b"d41d8cd98f00b204e9800998ecf8427e  a.bin", b"hello"
    with pytest.raises(DataError, match="another MD5"):
        download(f"{site.address}/a.bin", tmp_path, f"{site.address}/bad")
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="holds no MD5"):
        download(f"{site.address}/a.bin", tmp_path, f"{site.address}/none")
    with pytest.raises(DataError, match="cannot be read"):
        download(f"{site.address}/a.bin", tmp_path, f"{site.address}/missing")
    assert download(f"{site.address}/a.bin", tmp_path, f"{site.address}/good").read_bytes() == CONTENT


@pytest.mark.parametrize("cut", [1, 5000])
def test_packed_files_are_read_to_their_end(site: Site, tmp_path: Path, cut: int) -> None:
    packed = gzip.compress(CONTENT * 3, mtime=0)
    site.files["/log.gz"], site.files["/whole.gz"] = packed[:-cut], packed
    with pytest.raises(DataError, match="arrived damaged"):
        download(f"{site.address}/log.gz", tmp_path)
    assert not list(tmp_path.iterdir())
    assert gzip.decompress(download(f"{site.address}/whole.gz", tmp_path).read_bytes()) == CONTENT * 3


def test_what_is_there_already_is_not_taken_on_trust(site: Site, tmp_path: Path) -> None:
    site.files["/log.bin"] = CONTENT
    path = download(f"{site.address}/log.bin", tmp_path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match="is not what was downloaded"):
        download(f"{site.address}/log.bin", tmp_path)
    (tmp_path / "own.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="was not downloaded by peso"):
        download(f"{site.address}/own.bin", tmp_path)
    assert (tmp_path / "own.bin").read_bytes() == b"mine"


def test_addresses_are_the_publishers() -> None:
    reviews, items = addresses_of("amazon-2023", "Video_Games")
    assert reviews.url.endswith("/amazon_2023/raw/review_categories/Video_Games.jsonl.gz")
    assert items.url.endswith("/amazon_2023/raw/meta_categories/meta_Video_Games.jsonl.gz")
    (archive,) = addresses_of("movielens", "ml-1m", "http://mirror/ml/")
    assert (archive.url, archive.checksum_url) == ("http://mirror/ml/ml-1m.zip", "http://mirror/ml/ml-1m.zip.md5")
    for log, part in (("netflix", "all"), ("movielens", "ml-2m"), ("amazon-2018", "../secret")):
        with pytest.raises(ConfigError):
            addresses_of(log, part)


def test_a_log_is_downloaded_and_imported(site: Site, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    ratings = [f"{user}::{item}::5::{978_300_000 + 10 * user + item}" for user in range(1, 9) for item in range(1, 9)]
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "\n".join(ratings))
        archive.writestr("ml-1m/movies.dat", "\n".join(f"{item}::Film {item} (1990)::Drama" for item in range(1, 9)))
    site.files["/ml-1m.zip"] = buffer.getvalue()
    site.files["/ml-1m.zip.md5"] = hashlib.md5(buffer.getvalue()).hexdigest().encode()
    folder = tmp_path / "files"
    facts = output_of("download", "movielens", "ml-1m", "--folder", folder, "--mirror", site.address, "--json")
    assert facts["files"] == [str(folder / "ml-1m.zip")]
    assert facts["import"] == f"peso import movielens {folder / 'ml-1m'} --workspace W"
    done = peso("import", "movielens", folder / "ml-1m", "--workspace", tmp_path / "shop")
    assert done.returncode == 0, done.stderr
    nothing = peso("download", "amazon-2023", "Nothing", "--folder", folder, "--mirror", site.address)
    assert_one_sentence(nothing, "Nothing.jsonl.gz answers 404", "check the name")
    assert_one_sentence(peso("download", "movielens", "ml-2m"), "no MovieLens release 'ml-2m'", "ml-25m")


def test_an_archive_without_a_folder_gets_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "loose.zip", "w") as archive:
        archive.writestr("a.csv", "1")
        archive.writestr("b.csv", "2")
    assert sorted(file.name for file in unpack(tmp_path / "loose.zip").iterdir()) == ["a.csv", "b.csv"]
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DataError, match="empty archive"):
        unpack(tmp_path / "empty.zip")
