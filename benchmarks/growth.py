"""What grows: with the number of checks, with the number of workers, with time.

Time and memory of answers from memory with 1 to 1,000 checks; of gunicorn's workers; and over an
hour of polling once a second, on a clock that is moved by hand.

    python -m benchmarks.growth [--json FILE]
"""

from __future__ import annotations

import gc
import re
import statistics
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

from benchmarks._apps import BARE, GTHREAD, OURS, serve
from benchmarks._client import ask
from benchmarks._in_process import asgi_app, serve_asgi, serve_wsgi, wsgi_app
from benchmarks._measure import CONTROL, Results, nanoseconds, take_turns
from healthmw import Health, asgi, wsgi
from healthmw.testing import ManualClock

NUMBERS = (1, 10, 100, 1_000)
WORKERS = (1, 4, 16, 32)
PATH = "/health_check"
_TIMES = 2_000


async def _well() -> None:
    """Pass."""


def _health(number: int, **options: Any) -> Health:
    health = Health(**options)
    for n in range(number):
        health.add(f"check_{n}", _well)
    return health


def _kib_of(number: int) -> float:
    """Return what a `Health` with so many checks and one report takes, in KiB."""
    _health(1).run_sync()  # what is loaded and started once
    gc.collect()
    tracemalloc.start()
    health = _health(number)
    health.run_sync()
    gc.collect()
    kib = tracemalloc.get_traced_memory()[0] / 1024
    tracemalloc.stop()
    return kib


def checks(results: Results) -> None:
    interfaces: list[tuple[str, Any, Any, Any]] = [
        ("ASGI", serve_asgi, asgi.HealthMiddleware, asgi_app),
        ("WSGI", serve_wsgi, wsgi.HealthMiddleware, wsgi_app),
    ]
    for interface, serving, middleware, app in interfaces:
        candidates = {}
        for number in NUMBERS:
            health = _health(number, max_age=3600)
            health.run_sync()
            run = serving(middleware(app, health), PATH)
            candidates[f"{number:,} checks"] = nanoseconds(run, _TIMES)
        samples = take_turns(candidates, rounds=results.rounds(101))
        first = next(iter(candidates))
        rows = [
            {
                "": name,
                "ns an answer": samples.median(name),
                "beside 1 check": samples.ratio(name, first),
            }
            for name in (first, CONTROL, *list(candidates)[1:])
        ]
        results.table(f"{interface}: an answer from memory, by number of checks", rows)
    kib = {number: _kib_of(number) for number in NUMBERS}
    results.table(
        "Memory, by number of checks",
        [{"checks": f"{n:,}", "KiB": kib[n], "KiB a check": kib[n] / n} for n in NUMBERS],
    )


def _pss_kib(pid: int) -> int:
    """Return the memory of a process, with its share of what it shares."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) if found else 0


def workers(results: Results) -> None:
    rows = []
    for number in WORKERS:
        row: dict[str, Any] = {"workers": number}
        for name, app in (("bare", BARE["wsgi"]), ("healthmw", OURS["wsgi"])):
            command = f"{GTHREAD} --workers {number}"
            with (
                tempfile.TemporaryDirectory() as folder,
                serve(app, command, Path(folder), CHECKS="async 10 0") as server,
            ):
                answers = [ask(server.port, app.path) for _ in range(40 * number)]
                took = [answer.took for answer in answers[20 * number :]]
                row[f"{name}: median answer, ms"] = 1000 * statistics.median(took)
                memory = [_pss_kib(pid) for pid in server.workers]
                row[f"{name}: MiB a worker"] = statistics.median(memory) / 1024
        rows.append(row)
    results.table("gunicorn's workers, 10 checks", rows)


def hour(results: Results) -> None:
    """Poll once a second for an hour: each poll finds the last results too old."""
    clock = ManualClock()
    health = _health(10, clock=clock, max_age=0.5)
    app = wsgi.HealthMiddleware(wsgi_app, health)
    poll = serve_wsgi(app, PATH)
    rows = []
    poll(60)
    gc.collect()
    tracemalloc.start()
    first: float | None = None
    for minutes in (10, 20, 30, 40, 50, 60):
        for _ in range(60 if results.quick else 600):
            clock.advance(1)
            poll(1)
        gc.collect()
        kib = tracemalloc.get_traced_memory()[0] / 1024
        first = kib if first is None else first
        rows.append({"minutes": minutes, "KiB": kib, "more than after 10": kib - first})
    tracemalloc.stop()
    results.table("An hour of polls, 10 checks: memory", rows)


def main() -> None:
    results = Results("Measure what grows.")
    checks(results)
    workers(results)
    hour(results)
    results.finish()


if __name__ == "__main__":
    main()
