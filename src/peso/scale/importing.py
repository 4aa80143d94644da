"""Logs read on many machines: parts of files go to actors that parse and check their rows.

An actor leaves a part's good rows and what is to be said of it where all machines see it, and only a number travels
back. The driver takes the parts in the order of the log, so bad rows and faults of files are told as one process tells
them, and numbers the rows as one process does. A part that is done twice leaves the same files.
"""

import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from peso.data.sources.bad_rows import NUM_BEFORE_STOP, BadRow, Rejects
from peso.data.sources.file_parts import FilePart
from peso.data.sources.log_reader import ReadLog, checked, numbered, seen_time_format
from peso.data.sources.raw_log import PartSizes, RawLog
from peso.errors import DataError
from peso.files import remove_leftovers
from peso.scale.batches import Pool, done_in_pool

log = logging.getLogger(__name__)

_SCRATCH = ".tmp-import-"


@dataclass(frozen=True)
class PartWork:
    """A piece is a part of a file.

    Attributes:
        raw_log: what is read; its files are not asked for.
        parts: of the log, in order, with absolute paths.
        is_lenient: whether bad rows are set aside.
        folder: takes, of each part, the good rows as `.parquet` files whose names are in the order of the log, and its
            report: `[line, reason, content]` per bad row, then `{"num_rows", "fault"}`, as JSON lines.
    """

    raw_log: RawLog
    parts: tuple[FilePart, ...]
    is_lenient: bool
    folder: Path

    def load(self) -> bool:
        """See `Work.load`; there is nothing to keep."""
        return True

    def do(self, loaded: bool, number: int) -> int:
        """See `Work.do`; in rows."""
        num_rows = num_bad = 0
        fault = None
        unfinished = self.report(number).with_suffix(f".{os.getpid()}")
        with unfinished.open("w", encoding="utf-8") as report:
            try:
                batches = self.raw_log.batches_of(self.parts[number])
                for place, rows in enumerate(checked(batches, self.raw_log.layout.time_format)):
                    num_rows += rows.num_rows
                    num_bad += len(rows.bad)
                    report.writelines(json.dumps([row.line, row.reason, row.content]) + "\n" for row in rows.bad)
                    if num_bad >= NUM_BEFORE_STOP and not self.is_lenient:
                        break
                    if rows.good.height:
                        good = self.folder / f"{number:06}-{place:06}.{os.getpid()}"
                        rows.good.write_parquet(good, compression="lz4")
                        os.replace(good, good.with_suffix(".parquet"))
            except DataError as error:  # told by the driver, once it has told what stands before
                fault = str(error)
            report.write(json.dumps({"num_rows": num_rows, "fault": fault}) + "\n")
        os.replace(unfinished, self.report(number))
        return num_rows

    def report(self, number: int) -> Path:
        """Where a part's report lies, once the part is done."""
        return self.folder / f"{number:06}.jsonl"


def read_log_in_pool(
    raw_log: RawLog, rejects: Rejects, workspace: Path, pool: Pool, sizes: PartSizes | None = None
) -> ReadLog:
    """Does `read_log` with the rows parsed and checked in the cluster that this process is in.

    Args:
        raw_log: see there; every machine must see its files under the same paths.
        rejects: takes the bad rows.
        workspace: where rows wait until all are read; every machine must see it under the same path. Nothing is left
            there, and a workspace that does not exist yet does not exist afterwards.
        pool: the actors.
        sizes: of the parts; those of the batches of `read_log` by default.

    Raises:
        DataError: see `read_log`.
    """
    is_lenient = rejects.lenient is not None
    time_format = seen_time_format(raw_log, is_lenient)
    known = replace(raw_log, layout=replace(raw_log.layout, time_format=time_format))
    parts = raw_log.parts(sizes or PartSizes())
    absolute = tuple(replace(part, path=part.path.absolute()) for part in parts)
    num_rows = num_told = num_done = 0
    with _scratch(workspace.absolute()) as folder:
        work = PartWork(known, absolute, is_lenient, folder)
        for num_rows_done in done_in_pool(work, range(len(parts)), pool):
            num_done += num_rows_done
            log.info("read %d rows", num_done)
            while num_told < len(parts) and work.report(num_told).exists():
                num_rows += _tell(work.report(num_told), parts[num_told].path, rejects)
                num_told += 1
        rejects.stop_if_any()
        return ReadLog(numbered(folder, num_rows), num_rows, time_format)


def _tell(report: Path, path: Path, rejects: Rejects) -> int:
    """Hands on a part's bad rows and fault; its number of rows."""
    with report.open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            if isinstance(entry, dict):
                break
            rejects.add([BadRow(path, *entry)])
    if entry["fault"] is not None:
        raise DataError(entry["fault"].replace(str(path.absolute()), str(path)))
    return int(entry["num_rows"])


@contextmanager
def _scratch(workspace: Path) -> Iterator[Path]:
    is_new = not workspace.exists()
    workspace.mkdir(parents=True, exist_ok=True)
    remove_leftovers(workspace, _SCRATCH.removeprefix(".tmp-"))
    folder = workspace / f"{_SCRATCH}{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        yield folder
    finally:
        # An actor may still be at a part that nobody waits for: under another name it can put nothing there any more.
        ended = folder.rename(folder.with_name(folder.name + "-ended"))
        shutil.rmtree(ended)
        if is_new and not any(workspace.iterdir()):
            workspace.rmdir()
