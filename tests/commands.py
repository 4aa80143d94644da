"""The command line as tests call it: each call is a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from processes import SERVER

_SECONDS = 300


def peso(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = ["peso", *map(str, arguments)]
    with TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("stdout", "stderr")]
        process = SERVER.Process(target=_main, args=(words, paths, dict(os.environ), Path.cwd()))
        process.start()
        process.join(_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, _SECONDS)
        return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text() for path in paths))


def _main(words: list[str], paths: list[Path], environment: dict[str, str], folder: Path) -> None:
    for descriptor, path in enumerate(paths, start=1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = words

    from peso.cli.main import main

    main()


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
