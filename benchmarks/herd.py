"""A thousand requests, fifty at once: how often checks run, and who connects to PostgreSQL.

As each candidate is shipped: ours and two of the peers keep results, for 1, 60 and 27 s. What ours
may run is one for each second begun.

    python -m benchmarks.herd [--json FILE]
"""

from __future__ import annotations

import math
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._apps import MANY_THREADS, OURS, PEERS, UVICORN, App, peers, serve
from benchmarks._checks import runs
from benchmarks._client import Answer, ask_many
from benchmarks._measure import Results
from tests.services.servers import PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TIMES, AT_ONCE = 1_000, 50
COMMANDS = {"asgi": UVICORN, "wsgi": MANY_THREADS}


class _TellingPostgreSQL(PostgreSQL):
    """A PostgreSQL that writes each connection into its log."""

    def command(self) -> Sequence[str]:
        return (*super().command(), "-c", "log_connections=on")

    @property
    def connections(self) -> int:
        return self.log.read_text(errors="replace").count("connection authorized")


@contextmanager
def postgresql() -> Iterator[_TellingPostgreSQL]:
    server = _TellingPostgreSQL(max_connections=200)
    try:
        server.start()
        yield server
    finally:
        server.close()


def herd(app: App, folder: Path, **environ: str) -> tuple[list[Answer], float]:
    with serve(app, COMMANDS[app.interface], folder, **environ) as server:
        began = time.perf_counter()
        answers = ask_many(server.port, app.path, times=TIMES, at_once=AT_ONCE, bound=60)
        return answers, time.perf_counter() - began


def well(answers: list[Answer]) -> int:
    return sum(answer.status in {200, 204} for answer in answers)


def probe_runs(app: App, kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        answers, took = herd(app, Path(folder), CHECKS=f"{kind} 1 0.01", JOURNAL=str(journal))
        begun, _ = runs(str(journal))
    return {
        "": app.name,
        "answers that were well": well(answers),
        "runs of the check": begun,
        "took, s": took,
        "seconds begun": math.ceil(took),
    }


def connections(app: App, kind: str, database: _TellingPostgreSQL) -> dict[str, Any]:
    before = database.connections
    with tempfile.TemporaryDirectory() as folder:
        answers, took = herd(app, Path(folder), CHECKS=f"{kind} 1 0", DSN=database.dsn())
    return {
        "": app.name,
        "answers that were well": well(answers),
        "connections opened": database.connections - before,
        "took, s": took,
    }


def main() -> None:
    results = Results("Count runs and connections for a thousand requests.")
    for interface in COMMANDS:
        kind = "async" if interface == "asgi" else "sync"
        apps = [OURS[interface], *peers(interface, kind)]
        title = f"{interface.upper()}: 1,000 requests, 50 at once, a check of 10 ms"
        results.table(title, [probe_runs(app, kind) for app in apps])
    with postgresql() as database:
        for interface in COMMANDS:
            kind = "async" if interface == "asgi" else "sync"
            apps = [OURS[interface], *(a for a in PEERS[interface] if a.database and a.can_be_had)]
            title = f"{interface.upper()}: the same with a check of PostgreSQL"
            results.table(title, [connections(app, kind, database) for app in apps])
    results.finish()


if __name__ == "__main__":
    main()
