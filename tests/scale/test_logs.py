"""Logs read on a Ray cluster: the workspace, bad rows and errors of one process, whatever happens to a worker."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import psutil
import pytest
import zstandard

from clusters import MAX_SECONDS, kill_one, local_cluster
from peso.data.importing import ImportRules, make_dataset
from peso.data.sources.bad_rows import REJECTS_FILE, collect_rejects
from peso.data.sources.log_reader import LogReader, ReadLog, read_log
from peso.data.sources.raw_log import PartSizes, RawLog, TableLayout
from peso.data.sources.row_batch import Columns
from peso.data.sources.table import read_table
from peso.errors import DataError
from peso.scale.batches import Pool
from peso.scale.importing import PartWork, read_log_in_pool
from peso.semantic_ids.filling import fill_workspace

COLUMNS = Columns("who", "what", "when", "stars")
SMALL = PartSizes(num_bytes=300, num_rows=20)
ROWS = 120

pytestmark = pytest.mark.filterwarnings("default")  # Ray warns of itself


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with local_cluster():
        yield


def rows(start: int, num_rows: int = ROWS) -> pl.DataFrame:
    """Names that need quotes, and notes that hold line breaks."""
    names = ("ann", "bob", "clara", 'd"ora', "eve, the 1st", "7", "007", "été")
    notes = ("", "in two\nlines", 'called "good"')
    table = [
        (names[n % 8], f"i{n * n % 13}", 1_700_000_000 + n, float(n % 5), notes[n % 3])
        for n in range(start, start + num_rows)
    ]
    return pl.DataFrame(table, schema=[*COLUMNS.by_part.values(), "note"], orient="row")


def csv(table: pl.DataFrame) -> bytes:
    return table.write_csv().encode()


def json_lines(table: pl.DataFrame) -> bytes:
    return table.write_ndjson().encode()


def write_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "1.csv").write_bytes(b"\xef\xbb\xbf" + csv(rows(0)))
    (folder / "2.csv.gz").write_bytes(gzip.compress(csv(rows(ROWS))))
    (folder / "3.csv.zst").write_bytes(zstandard.compress(csv(rows(2 * ROWS))))
    (folder / "4.jsonl").write_bytes(json_lines(rows(3 * ROWS)))
    rows(4 * ROWS).write_parquet(folder / "5.parquet")
    return folder


def spoil(folder: Path) -> None:
    """Bad rows of every kind, in every file, at places that a count of the lines must find."""
    lines = csv(rows(0)).decode().split("\n")
    lines[20:20] = [",i1,1700000000,1,", "ann,i1,1700000000,1,,2", "ann,i1,yesterday,1,"]
    lines[70:70] = ['"never closed, i1']
    lines[100:100] = ["ann,i1,1700000000,many,"]
    (folder / "1.csv").write_text("\n".join(lines))
    packed = gzip.decompress((folder / "2.csv.gz").read_bytes()) + b"ann,,1700000000,1,\n"
    (folder / "2.csv.gz").write_bytes(gzip.compress(packed))
    objects = json_lines(rows(3 * ROWS)).split(b"\n")
    objects[50:50] = [b"{", b"[]", b'{"who": "ann"}', b'"\xff"']
    (folder / "4.jsonl").write_bytes(b"\n".join(objects))


def in_pool(workspace: Path, num_workers: int = 2) -> LogReader:
    def read(log: RawLog, rejects: Any) -> ReadLog:
        return read_log_in_pool(log, rejects, workspace, Pool(num_workers), SMALL)

    return read


def imported(log: Path, workspace: Path, read: LogReader, is_lenient: bool = False) -> dict[str, bytes]:
    """Every file of the workspace that `peso import` makes of it."""
    with collect_rejects(workspace, is_lenient) as rejects:
        read_rows, files = read_table(log, TableLayout(COLUMNS), rejects, read)
        made = make_dataset(read_rows, files, "table", ImportRules(), lambda _: {})
        fill_workspace(workspace, made)
    return {str(file.relative_to(workspace)): file.read_bytes() for file in workspace.rglob("*") if file.is_file()}


def in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process, too, reads files in pieces of this test's size."""
    monkeypatch.setattr("peso.data.sources.text_chunks.text_chunks.__defaults__", (b"", SMALL.num_bytes))
    monkeypatch.setattr("peso.data.sources.parquet_rows.read_parquet_rows.__defaults__", (SMALL.num_rows,))


def in_any_order(work: PartWork, numbers: range, pool: Pool) -> Iterator[int]:
    """What a pool does, by this process: parts are done out of order, some twice."""
    order = [*numbers, *numbers[::3]]
    Random(0).shuffle(order)
    loaded = work.load()
    for number in order:
        yield work.do(loaded, number)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peso.scale.importing.done_in_pool", in_any_order)


@pytest.mark.usefixtures("in_this_process")
def test_a_folder_of_every_layout_is_the_workspace_of_one_process(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "log")
    parts = RawLog(tuple(sorted(folder.iterdir())), TableLayout(COLUMNS)).parts(SMALL)
    num_parts = Counter(part.path.name for part in parts)
    assert min(num_parts["1.csv"], num_parts["4.jsonl"]) > 10
    assert (num_parts["2.csv.gz"], num_parts["3.csv.zst"], num_parts["5.parquet"]) == (1, 1, 6)
    alone = imported(folder, tmp_path / "alone", read_log)
    assert imported(folder, tmp_path / "world", in_pool(tmp_path / "world")) == alone
    assert json.loads(alone["data/import.json"])["num_rows"] == 5 * ROWS


def test_bad_rows_are_those_of_one_process(tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "log")
    spoil(folder)
    in_small_chunks(monkeypatch)
    alone = imported(folder, tmp_path / "alone", read_log, is_lenient=True)
    assert imported(folder, tmp_path / "world", in_pool(tmp_path / "world"), is_lenient=True) == alone
    bad = [json.loads(line) for line in alone[REJECTS_FILE].splitlines()]
    at = {(row["file"], row["line"]): row["reason"] for row in bad}
    assert at["1.csv", 21] == "has no user"
    assert "has 6 fields" in at["1.csv", 22]
    assert at["2.csv.gz", 162] == "has no item"
    assert at["4.jsonl", 54] == "is not UTF-8 text"


def test_too_many_bad_rows_stop_the_pool(tmp_path: Path, cluster: None) -> None:
    folder = write_folder(tmp_path / "log")
    bad = "".join(f",i{n},1700000000,1,\n" for n in range(60)).encode()
    (folder / "1.csv").write_bytes(csv(rows(0)) + bad)
    (folder / "2.csv").write_bytes(csv(rows(0)) + bad)
    (folder / "3.csv").write_bytes(b"other,columns\n1,2\n")  # nobody reads as far
    says = r"^at least 100 bad rows: .*1.csv line 162: has no user; "
    assert_one_error(folder, tmp_path, says)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("case", ["a lost column", "damaged", "no time format", "no times", "empty", "bad alone"])
def test_errors_are_those_of_one_process(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "log")
    header, is_lenient = b"who,what,when,stars\n", False
    if case == "a lost column":
        (folder / "3.csv").write_bytes(csv(rows(0)).replace(b"what", b"that", 1))
        says = "3.csv has the columns 'who', 'that', .* but no 'what'"
    elif case == "damaged":
        (folder / "2.csv.gz").write_bytes((folder / "2.csv.gz").read_bytes()[:-20])
        says = "2.csv.gz: damaged gz data"
    elif case == "no time format":
        (folder / "1.csv").write_bytes(header + b"ann,i1,,1\nann,i1,soon,1\n")
        says = "time 'soon' is no number"
    elif case == "no times":
        (folder / "1.csv").write_bytes(header + b"ann,i1,,1\n" * 200)
        says = "at least 100 bad rows: .*1.csv line 2: has no time"
    elif case == "empty":
        (folder / "6.csv").write_bytes(b"")
        says = "6.csv is empty"
    else:
        for file in folder.iterdir():
            file.unlink()
        (folder / "1.csv").write_bytes(header + b"ann,,1700000000,1\n")
        says, is_lenient = "none of 1 rows is an interaction", True
    monkeypatch.chdir(tmp_path)
    assert_one_error(Path("log"), Path(), says, is_lenient)


def assert_one_error(log: Path, folder: Path, says: str, is_lenient: bool = False) -> None:
    """One process and a pool stop at the same, name what they read as it was given, and leave nothing."""
    errors = []
    for workspace, read in ((folder / "alone", read_log), (folder / "world", in_pool(folder / "world"))):
        with pytest.raises(DataError, match=says) as raised:
            imported(log, workspace, read, is_lenient)
        assert not workspace.exists()
        errors.append(str(raised.value))
    assert errors[0] == errors[1]


def test_a_killed_worker_leaves_the_same(tmp_path: Path, cluster: None) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.csv").write_bytes(csv(rows(500 * number, 500)))
    alone = imported(folder, tmp_path / "alone", read_log)
    world = tmp_path / "world"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(imported, folder, world, in_pool(world, num_workers=1))
        dead = kill_one("ray::MapWorker", when=lambda: len(list(world.glob(".tmp-import-*/*.jsonl"))) > 4)
        num_done = len(list(world.glob(".tmp-import-*/*.jsonl")))
        assert running.result(timeout=MAX_SECONDS) == alone
    parts = RawLog(tuple(sorted(folder.iterdir())), TableLayout(COLUMNS)).parts(SMALL)
    assert num_done < len(parts) - 50, "it was killed in the middle"
    assert not psutil.pid_exists(dead)
