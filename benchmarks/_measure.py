"""Side-by-side measurements: everything in turn, round after round, and ratios of medians.

A machine that is busy, or that slows down, meets all candidates alike when they take turns. The
first of them is measured twice, as itself and as its own control: what sets these two apart is
noise, and a difference between others that is no larger says nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

CONTROL = "the same, as control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What each candidate took, in each round."""

    by_name: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.by_name[name])

    def added(self, name: str, to: str) -> float:
        """Return by how much `name` is above `to`: the median of the rounds' differences."""
        pairs = zip(self.by_name[name], self.by_name[to], strict=True)
        return statistics.median(one - other for one, other in pairs)

    def ratio(self, name: str, to: str) -> float:
        return self.median(name) / self.median(to)


def take_turns(
    candidates: Mapping[str, Callable[[], float]], *, rounds: int, closely: Collection[str] = ()
) -> Samples:
    """Measure every candidate once a round. Each returns its figure; the first is the control.

    Those named by `closely`, which are to be told apart from the first, have three turns a round;
    so have the first and its control then.
    """
    first = next(iter(candidates))
    in_turn = {first: candidates[first], CONTROL: candidates[first], **candidates}
    often = {first, CONTROL, *closely} if closely else set()
    samples: dict[str, list[float]] = {name: [] for name in in_turn}
    for measure in in_turn.values():
        measure()  # to warm up
    shuffled = [name for name in in_turn for _ in range(3 if name in often else 1)]
    order = random.Random(0)
    for _ in range(rounds):
        order.shuffle(shuffled)  # so that none always follows the same one
        for name in shuffled:
            samples[name].append(in_turn[name]())
    return Samples(by_name=samples)


def nanoseconds(operation: Callable[[int], object], times: int) -> Callable[[], float]:
    """Return a candidate: the time of one operation, where `operation(times)` does so many.

    The processor's time, not the clock's: on a busy machine whoever needs more than a slice of the
    scheduler's is interrupted, and would be charged for what others do meanwhile.
    """

    def measure() -> float:
        gc.disable()
        try:
            operation(times // 10)  # whoever came before had the processor's caches
            began = time.thread_time_ns()
            operation(times)
            return (time.thread_time_ns() - began) / times
        finally:
            gc.enable()

    return measure


class Results:
    """Rows of figures: shown as a table, and written as JSON where that is asked for."""

    def __init__(self, description: str) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
        parser.add_argument(
            "--quick", action="store_true", help="fewer rounds: to see that it runs"
        )
        options = parser.parse_args()
        # What is installed has its bytecode; what is measured here has it after the first round.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self.quick: bool = options.quick
        self._file: Path | None = options.json
        self._tables: dict[str, list[dict[str, Any]]] = {}

    def rounds(self, number: int) -> int:
        return 3 if self.quick else number

    def table(self, title: str, rows: list[dict[str, Any]]) -> None:
        """Show `rows`, dicts of the same keys, under `title`."""
        self._tables[title] = rows
        cells = [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        print(f"\n{title}\n")
        for line in cells:
            first, *others = zip(line, widths, strict=True)
            row = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            print("  " + "   ".join(row).rstrip())

    def finish(self) -> None:
        """Write the JSON file, if one was named."""
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        found = {"about": about(), "quick": self.quick, "tables": self._tables}
        self._file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def about() -> dict[str, Any]:
    """Return what was measured on: figures of another machine are other figures."""
    model = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "")
    versions = {}
    for name in ("anyio", "uvicorn", "httptools", "gunicorn"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "versions": versions,
    }


def shown(value: object) -> str:
    """Return a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
    return str(value)
