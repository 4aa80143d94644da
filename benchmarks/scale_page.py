"""The tables of docs/scale.md, computed from what was measured and from assumptions that the page states.

`python -m benchmarks.scale_page`, from the repository's root.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peso.config import RunConfig
from peso.files import write_text
from peso.memory.weights import usual_weights
from peso.training.search import passes_over_block

RESULTS, PAGE = Path("docs/results"), Path("docs/scale.md")
START, END = "<!-- computed -->\n", "<!-- end of what is computed -->\n"

EVENTS_PER_USER = 20
TARGETS_PER_USER = 0.3
BASE_SHARE = 0.6
DOLLARS_PER_CORE_HOUR = 0.05
EFFICIENCY = 0.8
MEASURED_CORES = 2
TARGETS_PER_CORE = 32
_BYTES_PER_EVENT = 3 * 8
_PAIRS_PER_EVENT = 2 * len(usual_weights(RunConfig().memory, num_levels=1, has_content=False).distance_weights)
_BYTES_PER_PAIR = 8 + 8
_GIB = 2**30


@dataclass(frozen=True)
class Size:
    """A deployment.

    Attributes:
        name: in the table.
        users: of the log.
        items: of the catalogue.
        cores: that share the work.
    """

    name: str
    users: int
    items: int
    cores: int


SIZES = (
    Size("laptop", 100_000, 50_000, 8),
    Size("a machine", 1_000_000, 1_000_000, 64),
    Size("a cluster", 100_000_000, 10_000_000, 2048),
)


@dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes:
        import_rows: per second, on both cores of the machine.
        import_gib_per_row: peak memory of an import.
        train_targets: per second and epoch while the base trains, on both cores.
        update_seconds: per target and epoch of an update, on both cores.
        recommend_users: per second and core, both cores at it.
        trie_bytes: per item.
        list_bytes: per user, of the tables.
    """

    import_rows: float
    import_gib_per_row: float
    train_targets: float
    update_seconds: float
    recommend_users: float
    trie_bytes: float
    list_bytes: float


def read_rates(results: Path) -> Rates:
    """The rates in the benchmarks' JSON files."""

    def details(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((results / name).read_text(encoding="utf-8"))
        return found["details"] | {"targets_": found["targets"]}

    log, scale, update = details("import_log.json"), details("scale.json"), details("engine/update.json")
    milliseconds = list(update["milliseconds_per_target"].values())
    return Rates(
        import_rows=log["rows_per_second"],
        import_gib_per_row=log["targets_"]["peak_memory"]["value"] / log["num_rows"],
        train_targets=details("engine/train.json")["sid"]["targets_per_second"]["peso"],
        update_seconds=sum(milliseconds) / len(milliseconds) / 1000,
        recommend_users=scale["users_per_second"]["ray_2_workers"] / 2,
        trie_bytes=details("engine/trie.json")["1e+07"]["bytes_per_item"],
        list_bytes=scale["parquet_bytes_per_user"],
    )


def core_hours(size: Size, rates: Rates) -> dict[str, tuple[str, float]]:
    """Of every job, the arithmetic in words and the hours of one core."""
    config = RunConfig()
    base_epochs = config.backbone.epochs + config.training.base_epochs
    passes = passes_over_block(len(config.training.rate_factors), 0, config.training.epochs)
    events, targets = size.users * EVENTS_PER_USER, size.users * TARGETS_PER_USER
    base = events * BASE_SHARE
    return {
        "import, once": (
            f"{events:,} rows / {rates.import_rows:,.0f} rows/s x {MEASURED_CORES} cores",
            events / rates.import_rows * MEASURED_CORES / 3600,
        ),
        "base, once": (
            f"{base:,.0f} targets x {base_epochs} epochs / {rates.train_targets:,.0f} targets/s x "
            f"{MEASURED_CORES} cores",
            base * base_epochs / rates.train_targets * MEASURED_CORES / 3600,
        ),
        "update, per block": (
            f"{targets:,.0f} targets x {passes} passes x {1000 * rates.update_seconds:.3f} ms x {MEASURED_CORES} cores",
            targets * passes * rates.update_seconds * MEASURED_CORES / 3600,
        ),
        "all lists, per block": (
            f"{size.users:,} users / {rates.recommend_users:,.0f} users/s of a core",
            size.users / rates.recommend_users / 3600,
        ),
    }


def useful_cores(job: str, cores: int) -> int:
    """How many of some cores a job can use: an import is one process, and a step of training has so many targets."""
    training = RunConfig().training
    steps = {"base, once": training.base_batch_targets, "update, per block": training.batch_targets}
    if job in steps:
        return min(cores, max(1, steps[job] // TARGETS_PER_CORE))
    return MEASURED_CORES if job == "import, once" else cores


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def cost_table(sizes: Sequence[Size], rates: Rates) -> str:
    """Hours of a core, hours on the wall, and dollars."""
    lines = ["| size | job | arithmetic | core-hours | cores | hours | $ |", "|---|---|---|---|---|---|---|"]
    for size in sizes:
        for job, (arithmetic, hours) in core_hours(size, rates).items():
            cores = useful_cores(job, size.cores)
            paid = hours / (EFFICIENCY if cores > MEASURED_CORES else 1.0)
            cells = [f"{size.name}: {size.users:,} users, {size.items:,} items", job, arithmetic]
            cells += [_short(hours), f"{cores:,}", _short(paid / cores), _short(paid * DOLLARS_PER_CORE_HOUR)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def memory_table(sizes: Sequence[Size], rates: Rates) -> str:
    """What is held where, in GiB."""
    rows = {
        "import, one process: measured peak x rows": [
            size.users * EVENTS_PER_USER * rates.import_gib_per_row for size in sizes
        ],
        f"events in every worker: {_BYTES_PER_EVENT} B x events": [
            size.users * EVENTS_PER_USER * _BYTES_PER_EVENT / _GIB for size in sizes
        ],
        f"counting the memory, every worker: at least {_PAIRS_PER_EVENT} pairs x {_BYTES_PER_PAIR} B x events": [
            size.users * EVENTS_PER_USER * _PAIRS_PER_EVENT * _BYTES_PER_PAIR / _GIB for size in sizes
        ],
        f"trie in every worker: {rates.trie_bytes:.1f} B x items": [
            size.items * rates.trie_bytes / _GIB for size in sizes
        ],
        f"lists on disk: {rates.list_bytes:.0f} B x users": [size.users * rates.list_bytes / _GIB for size in sizes],
    }
    lines = [f"| GiB | {' | '.join(size.name for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(map(_short, values))} |" for name, values in rows.items()]
    return "\n".join(lines) + "\n"


def computed(results: Path = RESULTS) -> str:
    """Everything between the page's two marks."""
    rates = read_rates(results)
    return f"\n{cost_table(SIZES, rates)}\n{memory_table(SIZES, rates)}\n"


def filled(page: str, tables: str) -> str:
    """The page with other tables."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + START + tables + END + after


if __name__ == "__main__":
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), computed()))
