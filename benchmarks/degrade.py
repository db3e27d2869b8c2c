"""What customers notice of an outage: the examples under load while their payments service is away.

The FastAPI and the Flask example, each under its own server, get 50 requests a second, and their
health page 10. Meanwhile the service that they call is paused (SIGSTOP), killed and started again.
A third run is Flask without its bulkhead, `max_concurrent=`, and shorter.

Exit status 1: a request was not answered, or by a 5xx; the page did not say 200 OKAY; or a
customer's request was a trial. How fast answers were is shown, and depends on the machine.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from benchmarks._measure import Results
from benchmarks._outage import FULL, METHODS, PAGE, QUICK, Outage, Plan, phases, run

if TYPE_CHECKING:
    from benchmarks._load import Reply

BULKHEAD = ", max_concurrent=4"


def failures(outage: Outage) -> list[str]:
    """Return what was not as claimed, of what no machine is too slow for."""
    replies = outage.replies
    found = [f"{r.path}: {r.status} {r.body}" for r in replies if not 200 <= r.status < 500]
    found += [
        f"{PAGE}: {r.status} {r.body}, {r.health}"
        for r in replies
        if r.path == PAGE
        and ((r.status, r.body) != (200, "OKAY") or r.health not in {"okay", "degraded"})
    ]
    if outage.trials_by_customers:
        found.append(f"{outage.trials_by_customers} customers' requests were trials")
    return found


def slowest_added(outage: Outage, *, while_open: bool = True) -> float:
    """Return by how many seconds the slowest answer was above the median of the healthy ones.

    Of those while the circuit was open; else of the healthy ones, which is the machine's noise.
    """
    by_phase = dict(phases(outage))
    worst = 0.0
    for path in (METHODS, PAGE):
        healthy = _times(by_phase["healthy"], path)
        chosen = [name for name in by_phase if name.endswith("open")] if while_open else ["healthy"]
        slowest = max(took for name in chosen for took in _times(by_phase[name], path))
        worst = max(worst, slowest - statistics.median(healthy))
    return worst


def _times(replies: list[Reply], path: str) -> list[float]:
    return [reply.took for reply in replies if reply.path == path]


def rows(outage: Outage) -> list[dict[str, Any]]:
    """Return the table: a row for each phase and path. Milliseconds."""
    table = []
    for name, replies in phases(outage):
        for path in (METHODS, PAGE):
            chosen = [reply for reply in replies if reply.path == path]
            times = sorted(1000 * reply.took for reply in chosen)
            degraded = [
                r.health == "degraded" if path == PAGE else "card" not in r.body for r in chosen
            ]
            table.append(
                {
                    "payments, circuit": name,
                    "path": path,
                    "requests": len(chosen),
                    "5xx": sum(not 200 <= reply.status < 500 for reply in chosen),
                    "degraded": sum(degraded),
                    "median ms": round(statistics.median(times), 1) if times else None,
                    "p99 ms": round(times[(99 * len(times) - 1) // 100], 1) if times else None,
                    "slowest ms": round(times[-1], 1) if times else None,
                }
            )
    return table


def summary(outage: Outage) -> list[dict[str, Any]]:
    figures = {
        "answers that were 5xx, or none": sum(
            not 200 <= reply.status < 500 for reply in outage.replies
        ),
        "pages that were not 200 OKAY": sum(
            (reply.status, reply.body) != (200, "OKAY")
            for reply in outage.replies
            if reply.path == PAGE
        ),
        "customers' requests that were trials": outage.trials_by_customers,
        "trials of the probe that failed": outage.trials_that_failed,
        "pause to open circuit, s": round(outage.opened - outage.paused, 2),
        "slowest while open, above healthy median, ms": round(1000 * slowest_added(outage), 1),
        "the same while healthy (noise), ms": round(
            1000 * slowest_added(outage, while_open=False), 1
        ),
        "return to closed circuit, s": round(max(0.0, outage.closed - outage.up), 2),
    }
    return [{"figure": name, "value": value} for name, value in figures.items()]


def _stop(number: int, _frame: object) -> NoReturn:
    for handled in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(handled, signal.SIG_IGN)  # what has been started is being stopped: no hurry
    raise SystemExit(128 + number)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    results = Results(str(__doc__).partition("\n")[0])
    plan = QUICK if results.quick else FULL
    runs: list[tuple[str, str, Plan, str]] = [
        ("FastAPI, uvicorn", "fastapi", plan, ""),
        ("Flask, gunicorn with 2 workers of 8 threads", "flask", plan, ""),
        ("Flask without max_concurrent=", "flask", QUICK, BULKHEAD),
    ]
    broken = []
    for title, name, chosen, without in runs:
        with tempfile.TemporaryDirectory(prefix="healthmw-degrade-") as folder:
            outage = run(name, Path(folder), plan=chosen, without=without)
        results.table(title, rows(outage))
        results.table(f"{title}: in all", summary(outage))
        broken += [f"{title}: {failure}" for failure in failures(outage)]
    results.finish()
    for line in broken:
        print(f"NOT AS CLAIMED: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
