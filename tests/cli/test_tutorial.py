"""The tutorial's own lines, typed one by one; only the model is made smaller."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import tomli_w

from commands import peso
from peso.data.storage import load_dataset
from streams import SMALL

PROJECT = Path(__file__).parents[2]


def lines() -> list[list[str]]:
    page = (PROJECT / "docs" / "tutorial" / "README.md").read_text()
    (block,) = re.findall(r"```\n(.*?)```", page, flags=re.DOTALL)
    return [shlex.split(line) for line in block.splitlines()]


def test_ten_lines_from_a_log_to_recommendations(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(tomli_w.dumps(SMALL))
    assert len(lines()) == 10
    outputs = []
    for program, *arguments in lines():
        is_peso = program == ".venv/bin/peso"
        assert is_peso or program == ".venv/bin/python"
        if arguments[0] == "run":
            arguments += ["--config", "small.toml"]
        if not is_peso:
            arguments[0] = str(PROJECT / arguments[0])
        if is_peso:
            done = peso(*arguments, folder=tmp_path)
        else:
            command = [sys.executable, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    shop = tmp_path / "tutorial" / "shop"
    assert len(pl.read_csv(tmp_path / "tutorial" / "log.csv")) == load_dataset(shop / "data").num_events == 12_863
    for page in ("data.html", "items.html", "report.html"):
        assert (shop / page).stat().st_size > 10_000
    titles = set(pl.read_csv(tmp_path / "tutorial" / "items.csv")["title"])
    named = re.findall(r"^ +\d+\.  \S+  (.*)  \(-", outputs[-1], flags=re.MULTILINE)
    assert len(named) == 10 and len(set(named) & titles) >= 8
