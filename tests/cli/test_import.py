"""`peso import` as a stranger types it: your own log, from rows to recommendations' semantic IDs."""

import datetime as dt
import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from commands import assert_one_sentence, output_of, peso

ASK = ("--user", "who", "--item", "what", "--time", "when")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = [f"user {n % 7},{n % 11},2024-0{1 + n // 28}-{1 + n % 28:02}" for n in range(140)]
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(("who,what,when\n" + "\n".join(rows) + "\n").encode()))
    return path


def test_from_rows_to_codes(log: Path, tmp_path: Path) -> None:
    titles = ["Garden hose", "Garden rake", "Kitchen knife", "Kitchen pan", "Steel pan", "Hose reel"]
    items = [{"item_id": str(n), "title": titles[n % 6], "categories": ["Home"]} for n in range(11)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    target = tmp_path / "shop"
    facts = output_of(
        "import", "table", log, *ASK, "--items", tmp_path / "items.jsonl", "--every", "month", "-w", target
    )
    assert (facts["num_users"], facts["num_items"], facts["num_events"]) == (7, 11, 140)
    assert [block["interactions"] for block in facts["blocks"]] == [84, 28, 28]
    assert facts["import"]["block_starts"][1:] == ["2024-04-01T00:00:00+00:00", "2024-05-01T00:00:00+00:00"]
    assert facts["level_sizes"] is None
    assert_one_sentence(peso("run", "-w", target), "peso items encode")
    card = output_of("card", "-w", target)
    assert [block["num_new"] for block in card["blocks"]] == [7, 0, 0]
    assert "2024-04-01" in Path(card["report"]).read_text()
    record = output_of("items", "encode", "-w", target, "--levels", "2", "--codes", "8")
    assert record["num_items"] == 11
    again = output_of(
        "import", "table", log, *ASK, "--items", tmp_path / "items.jsonl", "--every", "month", "-w", target
    )
    assert again["level_sizes"] == [8, 8]
    assert_one_sentence(peso("import", "table", log, *ASK, "-w", target), "holds another data set")


def test_what_came_since_an_earlier_import_is_one_more_block(log: Path, tmp_path: Path) -> None:
    output_of("import", "table", log, *ASK, "--updates", "2", "-w", tmp_path / "first")
    longer = tmp_path / "longer.csv"
    text = gzip.decompress(log.read_bytes()).decode()
    longer.write_text(text + "".join(f"user {n},{n},2024-06-0{1 + n}\n" for n in range(5)))
    first = json.loads((tmp_path / "first" / "data" / "import.json").read_text())
    facts = output_of("import", "table", longer, *ASK, "--like", tmp_path / "first", "-w", tmp_path / "second")
    assert facts["import"]["block_starts"][:-1] == first["block_starts"]
    assert facts["blocks"][-1]["interactions"] == 5


def test_bad_rows_stop_or_are_set_aside(log: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_bytes(gzip.decompress(log.read_bytes()) + b"ann,,2024-05-30\nann,3,1924-01-01\n")
    ask = ("import", "table", bad, *ASK, "-w", tmp_path / "w")
    assert_one_sentence(peso(*ask), "2 bad rows", "bad.csv line 142: has no item", "line 143", "--lenient")
    assert not (tmp_path / "w").exists()
    facts = output_of(*ask, "--lenient")
    assert (facts["num_events"], facts["import"]["num_rows_set_aside"]) == (140, 2)
    assert len((tmp_path / "w" / "rejects.jsonl").read_text().splitlines()) == 2


def test_wrong_requests(log: Path, tmp_path: Path) -> None:
    ask = ("import", "table", log, "-w", tmp_path / "w")
    assert_one_sentence(peso(*ask, "--user", "who", "--item", "x"), "no 'x'")
    assert_one_sentence(peso(*ask, *ASK, "--every", "month", "--cut", "2024-04-01"), "give one of them")
    assert_one_sentence(peso(*ask, *ASK, "--min-user-events", "500"), "cleaning leaves nothing")
    assert_one_sentence(peso(*ask, *ASK, "--min-rating", "3"), "--rating")
    assert_one_sentence(peso(*ask, *ASK, "--like", tmp_path / "no"), "holds no import")
    assert_one_sentence(peso("import", "movielens", tmp_path, "-w", tmp_path / "w"), "no ratings.csv")
    assert_one_sentence(peso("card", "-w", tmp_path / "w"), "holds no data")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("suffix", "options", "named"),
    [
        (".csv", "--time when --updates 3 --every month", ("--updates", "--every")),
        (".csv", "--time when --updates 3 --cut 2024-04-01", ("--updates", "--cut")),
        (".csv", "--time when --base-share .5 --cut 2024-04-01", ("--base-share", "--cut")),
        (".csv", "--time when --updates 4 --like old", ("--updates", "--like")),
        (".csv", "--time when --base-share .6 --like old", ("--base-share", "--like")),
        (".csv", "--time-unit ms", ("--time-unit", "--time says")),
        (".csv", "--time-format %Y", ("--time-format", "--time says")),
        (".csv", "--names who,what,who", ("--names", "'who' twice")),
        (".jsonl", "--separator ;", ("--separator", ".csv", "log.jsonl")),
        (".jsonl.gz", "--names who,what", ("--names", ".csv", "log.jsonl.gz")),
        (".parquet", "--separator ;", ("--separator", ".csv", "log.parquet")),
        (".parquet", "--time when --time-unit s", ("--time-unit", "log.parquet holds dates")),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    tmp_path: Path, suffix: str, options: str, named: tuple[str, ...]
) -> None:
    path = tmp_path / f"log{suffix}"
    if suffix == ".parquet":
        pl.DataFrame({"who": ["ann"], "what": [1], "when": [dt.datetime(2024, 3, 9)]}).write_parquet(path)
    else:
        path.touch()
    ask = ["--user", "who", "--item", "what", *options.split(), "-w", str(tmp_path / "w")]
    assert_one_sentence(peso("import", "table", path, *ask), *named)
