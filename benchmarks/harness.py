"""What every benchmark shares: alternating measurements, medians, targets, and one JSON object or a table.

A benchmark is a function from `quick` to an `Outcome`; `run_benchmark` gives it a command line. Two sides are always
measured in turns inside one process, so that whatever else the machine does falls on both.
"""

import argparse
import json
import logging
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from peso.files import write_json

log = logging.getLogger(__name__)

PAIRS = 5
MAX_QUICK_SECONDS = 60
PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")


@dataclass(frozen=True)
class Target:
    """One number that the engine promises.

    Attributes:
        value: what was measured.
        target: what it is held to.
        direction: whether the value must be at least or at most the target.
        unit: of both.
    """

    value: float
    target: float
    direction: Literal["at_least", "at_most"] = "at_least"
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the promise holds; a value that is not a number keeps none."""
        if math.isnan(self.value):
            return False
        return self.value >= self.target if self.direction == "at_least" else self.value <= self.target


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found.

    Attributes:
        targets: the promises, by name.
        details: everything else worth keeping; JSON values.
    """

    targets: Mapping[str, Target]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Measurements of some sides that took turns.

    Attributes:
        measured: per side, one number per turn; equal positions were measured right after each other.
    """

    measured: Mapping[str, tuple[float, ...]]

    def median(self, side: str) -> float:
        """The side's median."""
        return statistics.median(self.measured[side])

    def ratio(self, numerator: str, denominator: str) -> float:
        """The median over turns of one side's number divided by the other's."""
        pairs = zip(self.measured[numerator], self.measured[denominator], strict=True)
        return statistics.median(above / below for above, below in pairs)

    def as_json(self) -> dict[str, Any]:
        """Median, extremes and number of turns of every side."""
        return {
            side: {"median": self.median(side), "min": min(values), "max": max(values), "turns": len(values)}
            for side, values in self.measured.items()
        }


def compare(sides: Mapping[str, Callable[[], float]], turns: int, warm_up: int = 1) -> Comparison:
    """Measures sides in turns; every second turn runs them in the opposite order, so that drift cancels.

    Args:
        sides: each does its work once and returns its measurement, such as seconds per target.
        turns: measurements kept per side.
        warm_up: turns before them that are thrown away.
    """
    measured: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(-warm_up, turns):
        order = list(sides)[:: 1 if turn % 2 == 0 else -1]
        for side in order:
            value = sides[side]()
            if turn >= 0:
                measured[side].append(value)
            log.info("%s %s: %.4g", side, f"turn {turn + 1}/{turns}" if turn >= 0 else "warm-up", value)
    return Comparison({side: tuple(values) for side, values in measured.items()})


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call; work queued on a GPU is waited for."""
    _synchronise()
    started = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - started


def per_unit(work: Callable[[], object], units: int) -> Callable[[], float]:
    """A side for `compare`: seconds per unit of work that handles `units` of them per call."""
    return lambda: seconds_of(work) / units


def run_benchmark(name: str, description: str | None, measure: Callable[[bool], Outcome], on_gpu: bool = False) -> None:
    """Parses the command line, measures, and writes one JSON object or a table to stdout.

    Args:
        name: the benchmark.
        description: its first line is shown by --help.
        measure: does the work; its argument says whether to be quick. Whatever it prints goes to stderr.
        on_gpu: whether a GPU takes part where there is one; targets of all others are of CPU cores.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=(description or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="less than a minute, smaller and noisier")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")
    parser.add_argument("--output", type=Path, help="file that gets the JSON object as well")
    arguments = parser.parse_args()
    if not on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    started = time.perf_counter()
    with redirect_stdout(sys.stderr):
        outcome = measure(arguments.quick)
    record = record_of(name, arguments.quick, outcome, time.perf_counter() - started)
    if arguments.output is not None:
        write_json(arguments.output, record)
    text = json.dumps(record, allow_nan=False) if arguments.json else table_of(record)
    sys.stdout.write(text + "\n")


def record_of(name: str, quick: bool, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """The JSON object of a benchmark: targets, details, and where they were measured.

    A value that is not a number is null there. A quick run also promises to stay under a minute.
    """
    promised = dict(outcome.targets)
    if quick:
        promised["quick_seconds"] = Target(seconds, MAX_QUICK_SECONDS, "at_most", "s")
    targets = {
        key: {
            "value": None if math.isnan(target.value) else target.value,
            "target": target.target,
            "direction": target.direction,
            "unit": target.unit,
            "met": target.met,
        }
        for key, target in promised.items()
    }
    return {
        "benchmark": name,
        "quick": quick,
        "targets": targets,
        "details": dict(outcome.details),
        "seconds": round(seconds, 1),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
    }


def table_of(record: Mapping[str, Any]) -> str:
    """The targets as aligned lines, the details as JSON under them."""
    rows = [("target", "measured", "wanted", "met")]
    for key, target in record["targets"].items():
        sign = ">=" if target["direction"] == "at_least" else "<="
        wanted = f"{sign} {target['target']:g} {target['unit']}".rstrip()
        value = "not a number" if target["value"] is None else f"{target['value']:.4g}"
        rows.append((key, value, wanted, "yes" if target["met"] else "NO"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    facts = {key: record[key] for key in ("quick", "seconds", "machine", "versions")}
    return "\n".join([*lines, "", json.dumps(record["details"], indent=1), json.dumps(facts)])


def machine() -> dict[str, Any]:
    """What the numbers were measured on; the load tells how busy it was with other work."""
    return {
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_name() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
