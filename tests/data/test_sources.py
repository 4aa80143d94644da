"""Readers of logs: what they read, that both ways of reading agree, and what they say of bad rows."""

import gzip
import json
import time
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.data.sources import delimited, json_lines
from peso.data.sources.amazon import read_amazon_reviews
from peso.data.sources.bad_rows import REJECTS_FILE, Rejects, collect_rejects
from peso.data.sources.item_files import read_amazon_items, read_item_table
from peso.data.sources.log_reader import ReadLog
from peso.data.sources.movielens import read_movielens
from peso.data.sources.raw_log import TableLayout
from peso.data.sources.row_batch import Columns, RowBatch
from peso.data.sources.table import read_table
from peso.data.sources.text_chunks import TextChunk, text_chunks
from peso.data.sources.times import TimeFormat, choose_time_format, guess_time_format
from peso.errors import DataError, PesoError

COLUMNS = Columns("u", "i", "t", "r")
CSV = "u,i,t,r\nann,10,1700000000,5\nbob,9,1700000001,4.5\nann,9,1700000002,1\n"


def events_of(log: ReadLog) -> list[tuple[str, str, int]]:
    kept = log.interactions
    rows = kept.events.select("user", "item", "time").rows()
    return [(kept.user_ids[user], kept.item_ids[item], time // 1_000_000) for user, item, time in rows]


EXPECTED = [("ann", "10", 1700000000), ("bob", "9", 1700000001), ("ann", "9", 1700000002)]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.tsv", "a.jsonl", "a.parquet", "dates.parquet"])
def test_every_layout_gives_the_same_log(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    frame = pl.read_csv(CSV.encode())
    if name == "a.csv.gz":
        path.write_bytes(gzip.compress(CSV.encode()))
    elif name == "a.csv.zst":
        path.write_bytes(zstandard.compress(CSV.encode()))
    elif name == "dates.parquet":
        frame.with_columns(pl.from_epoch("t", time_unit="s")).write_parquet(path)
    elif name == "a.parquet":
        frame.write_parquet(path)
    elif name == "a.jsonl":
        frame.write_ndjson(path)
    else:
        path.write_text(CSV.replace(",", "\t") if name == "a.tsv" else CSV)
    log, files = read_table(path, TableLayout(COLUMNS), Rejects())
    assert events_of(log) == EXPECTED
    assert log.interactions.item_ids == ["9", "10"]  # numbers by value
    assert log.interactions.events["rating"].to_list() == [5.0, 4.5, 1.0]
    assert files == [path]


def test_a_folder_is_read_in_order_and_without_times_rows_are_in_order(tmp_path: Path) -> None:
    (tmp_path / "2.csv").write_text("bob;y\n")
    (tmp_path / "1.csv").write_text("ann;x\nann;y\n")
    layout = TableLayout(Columns("user", "item"), separator=";", names=("user", "item"))
    log, _ = read_table(tmp_path, layout, Rejects())
    assert not log.interactions.has_times
    assert log.interactions.events.rows() == [(0, 0, 0), (0, 1, 1), (1, 1, 2)]


def test_bad_rows_are_named_by_file_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        'u,i,t,r\nann,1,1700000000,5\n,2,1700000000,5\nann,"3,1700000000,5\nann,4,yesterday,good\n1,2,3,4,5\n'
    )
    with pytest.raises(DataError) as caught:
        read_table(path, TableLayout(COLUMNS), Rejects())
    text = str(caught.value)
    assert "4 bad rows" in text
    for line, reason in ((3, "has no u"), (4, "separated values"), (5, "the time 'yesterday'"), (6, "5 fields")):
        assert f"{path} line {line}: " in text, line
        assert reason in text
    assert "and has the rating 'good', which is not a number" in text


def test_lenient_sets_bad_rows_aside(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    good = '{"u": "ann", "i": 7, "t": 1700000000, "r": 5}\n'
    path.write_bytes(
        (good * 2 + "[1]\n" + '{"u": {"id": 3}, "i": 7, "t": 1700000000, "r": 5}\n' + '{"u": "b"\n').encode()
        + b"\xff\n"
    )
    with collect_rejects(tmp_path / "w", is_lenient=True) as rejects:
        log, _ = read_table(path, TableLayout(COLUMNS), rejects)
    assert events_of(log) == [("ann", "7", 1700000000)] * 2
    assert log.num_rows == 6
    entries = [json.loads(line) for line in (tmp_path / "w" / REJECTS_FILE).read_text().splitlines()]
    assert [entry["line"] for entry in entries] == [3, 4, 5, 6]
    assert [entry["file"] for entry in entries] == ["bad.jsonl"] * 4
    reasons = [entry["reason"] for entry in entries]
    assert "not a JSON object" in reasons[0]
    assert "neither text nor a number" in reasons[1]
    assert "is not JSON" in reasons[2]
    assert "UTF-8" in reasons[3]


def test_nothing_is_left_of_a_lenient_import_that_fails_or_of_one_without_bad_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError), collect_rejects(tmp_path / "w", is_lenient=True):
        raise DataError("no")
    assert not (tmp_path / "w").exists()
    with collect_rejects(tmp_path / "w", is_lenient=True):
        pass
    assert not (tmp_path / "w" / REJECTS_FILE).exists()


def test_many_bad_rows_stop_early(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("u,i,t,r\n" + ",,,\n" * 500)
    with pytest.raises(DataError, match=r"at least 100 bad rows.*and 95 more"):
        read_table(path, TableLayout(COLUMNS, TimeFormat("s", None)), Rejects())


WRONG_FILES = [
    ("a.csv", b"", "is empty"),
    ("a.csv", b"u,i\n1,2\n", "no 't'"),
    ("a.csv", b"u,u,t,r\n", "'u' twice"),
    ("a.csv", b"\xff\xfe,i\n", "header line cannot be read"),
    ("a.csv", b"u,i,t,r\n", "none of 0 rows"),
    ("a.csv", b"u,i,t,r\n1,2,noon,4\n", "give --time-format"),
    ("a.csv", b"u,i,t,r\n1,2,-5,4\n", "no number since 1970"),
    ("a.csv.gz", b"no gzip", "damaged gz data"),
    ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)[:-9], "damaged gz data"),
    ("a.csv.zst", b"no zst", "damaged zst data"),
    ("a.parquet", b"PAR1", "cannot be read as Parquet"),
    ("a.xlsx", b"", "only .csv"),
    ("a.jsonl", b"", "none of 0 rows"),
    ("a.jsonl", b"{}\n", "none of 1 rows|has no user"),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG_FILES)
def test_wrong_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name, TableLayout(COLUMNS), Rejects())


def test_wrong_requests(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    for path, layout, message in (
        (tmp_path / "no.csv", TableLayout(COLUMNS), "does not exist"),
        (tmp_path / "a.csv", TableLayout(COLUMNS, separator="::"), "not one plain character"),
        (tmp_path / "a.csv", TableLayout(Columns("who", "i")), "no 'who'"),
    ):
        with pytest.raises(DataError, match=message):
            read_table(path, layout, Rejects())
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no"):
        read_table(empty, TableLayout(COLUMNS), Rejects())
    pl.DataFrame({"u": [1.5], "i": [1]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="no ids"):
        read_table(tmp_path / "b.parquet", TableLayout(Columns("u", "i")), Rejects())
    for unit, pattern, message in (("s", "%Y", "give one"), ("min", None, "not one of"), (None, "%Q", "gives no date")):
        with pytest.raises(DataError, match=message):
            choose_time_format(unit, pattern)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("1520614800", "s"), ("1520614800000", "ms"), ("1520614800000000", "us"), ("1520614800000000000", "ns")]
    + [(text, None) for text in ("2018-03-09 17:00:00", "2018-03-09T17:00:00", "2018-03-09T18:00:00+01:00")],
)
def test_times_are_guessed(text: str, unit: str | None) -> None:
    found = guess_time_format(text)
    assert found.unit == unit
    assert found.microseconds(pl.Series([text, None, "x", "0"])).to_list() == [1520614800000000, None, None, None]


def test_day_formats() -> None:
    chosen = choose_time_format(None, "%d.%m.%Y %H:%M")
    assert chosen is not None
    assert chosen.microseconds(pl.Series(["09.03.2018 17:00"])).to_list() == [1520614800000000]
    assert guess_time_format("20180309").pattern == "%Y%m%d"


def _read_carefully(text: str, first_line: int) -> RowBatch:
    data = text.encode("utf-8", errors="surrogateescape")
    return delimited._careful(Path("x.csv"), TextChunk(data, first_line), ["u", "i"], ",", Columns("u", "i"))


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n"), max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(cells, cells), max_size=8), st.integers(1, 40))
def test_both_ways_of_reading_tables_agree(rows: list[tuple[str, str]], chunk_bytes: int) -> None:
    frame = pl.DataFrame(rows, schema={"u": pl.String, "i": pl.String}, orient="row")
    data = frame.write_csv(quote_style="always").partition("\n")[2].encode()
    columns, path = Columns("u", "i"), Path("x.csv")
    careful = delimited._careful(path, TextChunk(data, 1), ["u", "i"], ",", columns)
    assert careful.bad == []
    assert careful.frame.select("user", "item").rows() == [(user or None, item or None) for user, item in rows]
    fast = delimited._fast(path, TextChunk(data, 1), ["u", "i"], ",", columns)
    if fast is not None and rows:
        assert fast.frame.with_columns(pl.col("user", "item").replace("", None)).equals(careful.frame)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["a,b", "a", "a,b,c", "a,\udcff", "", 'a,"b"x', '"a,\n,b"', '"a",b']), min_size=1))
def test_bad_rows_change_nothing_in_the_others(records: list[str]) -> None:
    together = _read_carefully("\n".join(records), 1)
    apart, line = [], 1
    for record in records:
        apart.append(_read_carefully(record, line))
        line += record.count("\n") + 1
    assert together.bad == [row for batch in apart for row in batch.bad]
    assert together.frame.equals(pl.concat(batch.frame for batch in apart))


def test_reading_takes_time_in_proportion_to_bad_rows() -> None:
    def seconds(num_rows: int) -> float:
        start = time.process_time()
        assert len(_read_carefully("1,2,3\n" * num_rows, 1).bad) == num_rows
        return time.process_time() - start

    few, many = (min(seconds(num_rows) for _ in range(3)) for num_rows in (4_000, 64_000))
    assert many < 60 * few  # 16 times is what it should be, the square 256


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(cells, st.integers(-(10**12), 10**12)), min_size=1, max_size=8))
def test_both_ways_of_reading_json_agree(rows: list[tuple[str, int]]) -> None:
    data = "".join(json.dumps({"u": user, "i": item, "x": [1]}) + "\n" for user, item in rows).encode()
    columns = Columns("u", "i")
    fast = json_lines._fast(Path("x"), TextChunk(data, 1), columns)
    careful = json_lines._careful(Path("x"), TextChunk(data, 1), columns)
    assert careful.bad == []
    assert fast is None or fast.frame.equals(careful.frame)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["a", "b\n", '"c\nd"', "\n", '""', "e,f"]), max_size=30), st.integers(1, 20))
def test_chunks_lose_nothing_and_count_lines(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], size: int
) -> None:
    data = "".join(parts).encode()
    path = tmp_path_factory.mktemp("chunks") / "x.csv"
    path.write_bytes(data)
    chunks = list(text_chunks(path, b'"', size))
    assert b"".join(chunk.data for chunk in chunks) == data
    line = 1
    for chunk in chunks:
        assert chunk.first_line == line
        line += chunk.data.count(b"\n")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_never_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    name = data.draw(st.sampled_from(["a.csv", "a.jsonl", "a.csv.gz", "a.csv.zst", "a.parquet"]))
    frame = pl.read_csv(CSV.encode())
    path = folder / name
    if name == "a.parquet":
        frame.write_parquet(path)
    elif name == "a.jsonl":
        frame.write_ndjson(path)
    else:
        plain = CSV.encode()
        packed = {"a.csv": plain, "a.csv.gz": gzip.compress(plain), "a.csv.zst": zstandard.compress(plain)}
        path.write_bytes(packed[name])
    content = bytearray(path.read_bytes())
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)
    ):
        content[place] = value
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read_table(path, TableLayout(COLUMNS), Rejects())
    except PesoError as error:
        assert str(error)


def test_real_amazon_reviews(shared_data: Path) -> None:
    path = shared_data / "amazon-raw" / "Musical_Instruments_5.sample.json"
    log, _ = read_amazon_reviews(path, "2018", Rejects())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert events_of(log) == [(line["reviewerID"], line["asin"], line["unixReviewTime"]) for line in lines]
    assert log.interactions.events["rating"].to_list() == [line["overall"] for line in lines]


def test_amazon_2023_and_item_metadata(tmp_path: Path) -> None:
    review = {"user_id": "U", "parent_asin": "P", "asin": "A", "rating": 4.0, "timestamp": 1588687728923, "title": "ok"}
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress((json.dumps(review) + "\n").encode()))
    log, _ = read_amazon_reviews(tmp_path / "r.jsonl.gz", "2023", Rejects())
    assert events_of(log) == [("U", "P", 1588687728)]
    new = {"parent_asin": "P", "title": "Salt &amp; pepper", "features": ["<b>Fine</b>"], "description": ["White."]}
    new |= {"categories": ["Home", "Kitchen"], "store": "Mill"}
    old = "{'asin': 'Q', 'title': \"Cook's knife\", 'categories': [['Home', 'Knives']], 'brand': 'Edge'}"
    (tmp_path / "meta.jsonl").write_text(json.dumps(new) + "\n" + old + "\n" + json.dumps({"asin": "other"}) + "\n")
    items = read_amazon_items(tmp_path / "meta.jsonl", {"P", "Q"}, Rejects())
    assert set(items) == {"P", "Q"}
    assert (items["P"].title, items["P"].text) == ("Salt & pepper", "Mill Fine White.")
    assert items["P"].categories == ["Home", "Kitchen"]
    assert (items["Q"].title, items["Q"].text, items["Q"].categories) == ("Cook's knife", "Edge", ["Home", "Knives"])
    (tmp_path / "meta.jsonl").write_text('{"title": "no id"}\n')
    with pytest.raises(DataError, match=r"line 1: has neither parent_asin nor asin"):
        read_amazon_items(tmp_path / "meta.jsonl", {"P"}, Rejects())


@pytest.mark.parametrize("layout", ["csv", "dat", "100k"])
def test_movielens(tmp_path: Path, layout: str) -> None:
    if layout == "csv":
        (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n")
        (tmp_path / "movies.csv").write_text('movieId,title,genres\n31,"Heat, The (1995)",Crime|Drama\n')
    elif layout == "dat":
        (tmp_path / "ratings.dat").write_text("1::31::2.5::1260759144\n")
        (tmp_path / "movies.dat").write_text("31::Heat, The (1995)::Crime|Drama\n", encoding="latin-1")
    else:
        (tmp_path / "u.data").write_text("1\t31\t2.5\t1260759144\n")
        flags = ["0"] * 19
        flags[6] = flags[8] = "1"
        (tmp_path / "u.item").write_text("|".join(["31", "Heat, The (1995)", "", "", "", *flags]) + "\n")
    log, items, _ = read_movielens(tmp_path, Rejects())
    assert events_of(log) == [("1", "31", 1260759144)]
    assert (items["31"].title, items["31"].categories) == ("Heat, The (1995)", ["Crime", "Drama"])
    next(tmp_path.glob("[mu]*.[cdi][satv]*")).unlink()
    with pytest.raises(DataError, match="holds"):
        read_movielens(tmp_path, Rejects())


def test_item_tables(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title,categories\n1,Saw,Tools|Wood\n2,,\n")
    items = read_item_table(tmp_path / "items.csv")
    assert (items["1"].title, items["1"].categories, items["2"].categories) == ("Saw", ["Tools", "Wood"], [])
    pl.DataFrame({"item_id": ["1"], "title": ["x"], "categories": [3]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match="'categories' holds"):
        read_item_table(tmp_path / "items.parquet")
