"""Replacing a directory: the old one or the new one is there at every moment, and a failure loses neither."""

import os
import threading
from pathlib import Path

import pytest

from peso import files
from peso.files import atomic_directory


def write(folder: Path, text: str) -> None:
    with atomic_directory(folder) as temporary:
        (temporary / "text").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_directory_is_replaced_and_nothing_stays_beside_it(
    tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    for text in ("one", "two"):
        write(tmp_path / "kept", text)
        assert (tmp_path / "kept" / "text").read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_reader_never_misses_it(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    write(folder, "0")
    is_over = threading.Event()

    def keep_writing() -> None:
        for number in range(200):
            write(folder, str(number))
        is_over.set()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    num_missed = 0
    while not is_over.is_set():
        num_missed += not folder.exists()
    writer.join()
    assert num_missed == 0


def test_a_failed_replacement_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "kept", "old")
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    rename, calls = os.replace, []

    def failing(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:
            raise OSError("disk")
        rename(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="disk"):
        write(tmp_path / "kept", "new")
    assert (tmp_path / "kept" / "text").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
