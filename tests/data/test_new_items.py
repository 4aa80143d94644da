"""Tables of new items: three formats, one content, and a sentence for whatever is wrong."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peso.data.new_items import read_new_items
from peso.errors import DataError, PesoError

FRAME = pl.DataFrame({"item_id": ["7", "8", "9"], "title": ["a, b", "c", None], "text": ["long", None, "only"]})


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"new{suffix}"
    if suffix == ".csv":
        FRAME.write_csv(path)
    elif suffix == ".jsonl":
        FRAME.write_ndjson(path)
    else:
        FRAME.write_parquet(path)
    new = read_new_items(path)
    assert list(new.ids) == ["7", "8", "9"]
    assert list(new.titles) == ["a, b", "c", ""]
    assert list(new.texts) == ["long", "", "only"]


def test_numbers_are_ids_and_the_text_may_be_absent(tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"item_id": 7, "title": "a", "more": 1}\n{"item_id": 8, "title": "b"}\n')
    new = read_new_items(tmp_path / "new.jsonl")
    assert (list(new.ids), list(new.texts)) == (["7", "8"], ["", ""])


def written(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("new.xlsx", written(""), "new items are read from .csv, .jsonl, .parquet"),
        ("new.csv", lambda path: None, "cannot be read as csv"),
        ("new.csv", written(""), "cannot be read as csv"),
        ("new.jsonl", written("{"), "cannot be read as jsonl"),
        ("new.parquet", written("x"), "cannot be read as parquet"),
        ("new.csv", written("id,title\n1,a\n"), "no 'item_id'"),
        ("new.csv", written("item_id,name\n1,a\n"), "no 'title'"),
        ("new.csv", written("item_id,title\n"), "holds no new items"),
        ("new.csv", written("item_id,title\n1,a\n,b\n"), "row 2 has no 'item_id'"),
        ("new.csv", written("item_id,title\n1,a\n1,b\n"), "holds item '1' twice"),
        ("new.jsonl", written('{"item_id": "1", "title": ["a"]}\n'), "column 'title' holds List"),
    ],
)
def test_wrong_tables(tmp_path: Path, name: str, write: Callable[[Path], object], message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_new_items(tmp_path / name)


@given(content=st.binary(max_size=60), suffix=st.sampled_from([".csv", ".jsonl", ".parquet"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"new{suffix}"
    path.write_bytes(b"item_id,title\n" * (suffix == ".csv") + content)
    try:
        assert len(read_new_items(path).ids) > 0
    except PesoError:
        pass
