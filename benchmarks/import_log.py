"""How long, and in how much memory, a log of 100 M rows becomes a data set.

`python -m benchmarks.import_log [--quick] [--json] [--output FILE]`. The log is simulated: users and
items drawn by popularity, times increasing with ties, a CSV file per 10 M rows.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Outcome, Target, run_benchmark
from peso.data.importing import ImportRules, make_dataset
from peso.data.sources.bad_rows import Rejects
from peso.data.sources.raw_log import TableLayout
from peso.data.sources.row_batch import Columns
from peso.data.sources.table import read_table
from peso.data.storage import save_dataset

ROWS, QUICK_ROWS = 100_000_000, 2_000_000
_ROWS_PER_FILE = 10_000_000
_ROWS_PER_USER = 20
_NUM_ITEMS = 1_000_000


def write_log(folder: Path, num_rows: int) -> None:
    """Writes `user,item,time` rows, a file per 10 M rows."""
    rng = np.random.default_rng(0)
    for number, start in enumerate(range(0, num_rows, _ROWS_PER_FILE)):
        size = min(_ROWS_PER_FILE, num_rows - start)
        users = (rng.random(size) ** 1.5 * (num_rows // _ROWS_PER_USER)).astype(np.int64)
        items = (rng.random(size) ** 3 * _NUM_ITEMS).astype(np.int64)
        frame = pl.DataFrame({"user": users, "item": items, "time": 1_500_000_000 + (start + np.arange(size)) // 4})
        names = (pl.format("A{}", "user").alias("user"), pl.format("B{}", "item").alias("item"))
        frame.with_columns(names).write_csv(folder / f"log-{number:03}.csv")


def measure(quick: bool) -> Outcome:
    """Writes a log, and reads it into a data set on disk."""
    num_rows = QUICK_ROWS if quick else ROWS
    with tempfile.TemporaryDirectory(prefix="peso-log-") as name:
        log, data = Path(name) / "log", Path(name) / "data"
        log.mkdir()
        write_log(log, num_rows)
        num_bytes = sum(file.stat().st_size for file in log.iterdir())
        started = time.perf_counter()
        read, files = read_table(log, TableLayout(Columns("user", "item", "time")), Rejects())
        read_seconds = time.perf_counter() - started
        imported = make_dataset(read, files, "simulated log", ImportRules(), lambda _: {})
        save_dataset(imported.dataset, data)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    details = {
        "num_rows": num_rows,
        "log_gib": num_bytes / 2**30,
        "num_users": imported.dataset.num_users,
        "num_items": imported.dataset.num_items,
        "read_seconds": read_seconds,
        "import_seconds": seconds,
        "rows_per_second": num_rows / seconds,
    }
    return Outcome({"peak_memory": Target(peak, 24.0, "at_most", "GiB")}, details)


if __name__ == "__main__":
    run_benchmark("import_log", __doc__, measure)
