"""A check that never comes back: what it does to the answers, and what it leaves behind.

Each candidate has one check, which hangs, under a time limit of one second where it has such an
option. It is asked once; and then 60 times more, ten at once.

    python -m benchmarks.hanging [--json FILE]
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._apps import MANY_THREADS, OURS, UVICORN, App, peers, serve
from benchmarks._checks import runs
from benchmarks._client import ask, ask_many
from benchmarks._measure import Results

LIMIT, POLLS, AT_ONCE = 1.0, 60, 10
_FIRST_BOUND, _BOUND = 8.0, 3.0
COMMANDS = {"asgi": UVICORN, "wsgi": MANY_THREADS}


def hang(app: App, kind: str, folder: Path) -> dict[str, Any]:
    journal = folder / "journal"
    environ = {"CHECKS": f"{kind} 1 hang", "JOURNAL": str(journal)}
    server = serve(app, COMMANDS[app.interface], folder, **environ)
    with server:
        (pid,) = server.workers
        tasks = Path(f"/proc/{pid}/task")
        ask(server.port, app.path.rpartition("/")[0] + "/other", bound=_BOUND)
        before = len(list(tasks.iterdir()))
        first = ask(server.port, app.path, bound=_FIRST_BOUND)
        polls = ask_many(server.port, app.path, times=POLLS, at_once=AT_ONCE, bound=_BOUND)
        running = runs(str(journal))[1]
        threads = len(list(tasks.iterdir())) - before
        server.kill()  # it can't be asked to go: something hangs in it
    answered = [poll.took for poll in polls if poll.status]
    return {
        "": app.name,
        "status": str(first.status or "none"),
        "answer beyond 1 s, s": first.took - LIMIT if first.status else None,
        "polls answered": f"{len(answered)} of {POLLS}",
        "median answer, ms": 1000 * statistics.median(answered) if answered else None,
        "checks running": running,
        "more threads": threads,
    }


def main() -> None:
    results = Results("Measure what a check that hangs does.")
    for interface in COMMANDS:
        for kind in ("async", "sync"):
            rows = []
            for app in [OURS[interface], *peers(interface, kind)]:
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(hang(app, kind, Path(folder)))
            results.table(f"{interface.upper()}: one {kind} check that hangs, then 60 polls", rows)
    results.finish()


if __name__ == "__main__":
    main()
