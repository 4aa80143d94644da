"""The command line as tests call it: each call is a process of its own."""

import json
import os
import socket
import subprocess
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from processes import SERVER

_SECONDS = 300


def peso(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Waits for its end; in a folder, this process's own by default."""
    with TemporaryDirectory() as outputs:
        paths = [Path(outputs, name) for name in ("stdout", "stderr")]
        process = begin(*arguments, paths=paths, folder=folder)
        process.join(_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(map(str, arguments)), _SECONDS)
        words = ["peso", *map(str, arguments)]
        return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text() for path in paths))


def begin(
    *arguments: str | Path, paths: list[Path], folder: Path | None = None, environment: dict[str, str] | None = None
) -> ForkServerProcess:
    """Starts it.

    Args:
        arguments: of `peso`.
        paths: files for what it writes to stdout and stderr.
        folder: where it works; by default where this process does.
        environment: variables beside this process's own.
    """
    words = ["peso", *map(str, arguments)]
    process = SERVER.Process(
        target=_main, args=(words, paths, os.environ | (environment or {}), folder or Path.cwd()), name="peso"
    )
    process.start()
    return process


def begin_two(*arguments: str | Path, folder: Path) -> list[ForkServerProcess]:
    """Starts a command in two processes that find each other as those of `torchrun` do, by their environment.

    Args:
        arguments: of `peso`.
        folder: gets `0.stdout`, `0.stderr`, `1.stdout` and `1.stderr`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    both = meeting | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [
        begin(
            *arguments,
            paths=[folder / f"{process}.{name}" for name in ("stdout", "stderr")],
            environment=both | {"RANK": str(process), "LOCAL_RANK": str(process)},
        )
        for process in range(2)
    ]


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
