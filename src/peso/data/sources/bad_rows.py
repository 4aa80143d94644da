"""Rows that cannot be used: the import stops at them, or sets them aside; nothing is lost silently."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from peso.errors import DataError
from peso.files import atomic_path

REJECTS_FILE = "rejects.jsonl"

NUM_BEFORE_STOP = 100
"""Bad rows that are not set aside: behind so many an import reads no further."""

_NUM_SHOWN = 5


@dataclass(frozen=True)
class BadRow:
    """One of them.

    Attributes:
        file: where.
        line: counted from 1, the header included; of a table without lines the row.
        reason: what is wrong, a clause without a full stop.
        content: the row as it stands, or what of it was read; may be cut.
    """

    file: Path
    line: int
    reason: str
    content: str


@dataclass(eq=False)
class Rejects:
    """Collects bad rows.

    Attributes:
        lenient: an open file that takes them, a JSON object per line; None to stop at them.
        num_rows: how many there were.
    """

    lenient: TextIO | None = None
    num_rows: int = 0
    _shown: list[BadRow] = field(default_factory=list)

    def add(self, rows: Iterable[BadRow]) -> None:
        """Takes bad rows.

        Raises:
            DataError: they must not be set aside, and there are so many that reading on would tell nothing new.
        """
        for row in rows:
            self.num_rows += 1
            if len(self._shown) < _NUM_SHOWN:
                self._shown.append(row)
            if self.lenient is not None:
                entry = {"file": row.file.name, "line": row.line, "reason": row.reason, "content": row.content}
                self.lenient.write(json.dumps(entry, ensure_ascii=True) + "\n")
            elif self.num_rows >= NUM_BEFORE_STOP:
                self.stop_if_any(is_complete=False)

    def stop_if_any(self, is_complete: bool = True) -> None:
        """Stops unless the rows were set aside.

        Args:
            is_complete: whether everything was read.

        Raises:
            DataError: there was a bad row; the first few are named.
        """
        if self.lenient is not None or not self._shown:
            return
        named = "; ".join(f"{row.file} line {row.line}: {row.reason}" for row in self._shown)
        more = f"; and {self.num_rows - len(self._shown):,} more" if self.num_rows > len(self._shown) else ""
        least = "" if is_complete else "at least "
        rows = "row" if self.num_rows == 1 else "rows"
        raise DataError(
            f"{least}{self.num_rows:,} bad {rows}: {named}{more}; mend them, or let --lenient set them aside."
        )


@contextmanager
def collect_rejects(workspace: Path, is_lenient: bool) -> Iterator[Rejects]:
    """Collects the bad rows of one import.

    Args:
        workspace: where `rejects.jsonl` is written, on a clean exit and if there were bad rows.
        is_lenient: whether they are set aside there rather than stopped at.
    """
    if not is_lenient:
        yield Rejects()
        return
    is_new = not workspace.exists()
    try:
        with atomic_path(workspace / REJECTS_FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
            rejects = Rejects(file)
            yield rejects
    finally:
        if is_new and workspace.exists() and not any(workspace.iterdir()):
            workspace.rmdir()
    if rejects.num_rows == 0:
        (workspace / REJECTS_FILE).unlink()
