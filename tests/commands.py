"""The command line as tests call it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def peso(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "peso", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def output_of(*arguments: str | Path) -> Any:
    done = peso(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_one_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("peso: ")
    for part in parts:
        assert part in done.stderr
