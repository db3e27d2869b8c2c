"""The endpoint as a caller sees it: over uvicorn and gunicorn, beside the peers, by `wrk`.

Three checks that do nothing. First as each is shipped, so that those that keep results answer from
memory; then with all that keeping turned off, where only runs that requests share can save any.
Each server is loaded for a second in turn, with 32 connections, and those that differ by little
three times as often; `wrk` comes from Debian.

    python -m benchmarks.served [--json FILE]
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._apps import (
    ALIKE,
    BARE,
    BY_HAND,
    GTHREAD,
    OURS,
    SYNC,
    UVICORN,
    App,
    peers,
    serve,
)
from benchmarks._measure import CONTROL, Results, take_turns

if TYPE_CHECKING:
    from tests.servers.boot import Server

CONNECTIONS = 32
_SECONDS = 1
_PER_SECOND = re.compile(r"Requests/sec:\s+([\d.]+)")
_WRONG = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")
_TOTAL = re.compile(r"(\d+) requests in")

SERVERS = {
    "uvicorn": ("asgi", UVICORN),
    "gunicorn sync": ("wsgi", SYNC),
    "gunicorn gthread": ("wsgi", GTHREAD),
}


class Loaded:
    """A candidate: a second of load on one server."""

    def __init__(self, server: Server, path: str) -> None:
        self._url = f"http://127.0.0.1:{server.port}{path}"
        self._server = server
        self.micros: list[float] = []
        """What each burst took of the server's processor time, in µs a request."""
        self.wrong: set[str] = set()

    def __call__(self) -> float:
        """Return requests a second."""
        before = self._cpu_micros()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{_SECONDS}s", "--timeout", "5s", self._url]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        took = self._cpu_micros() - before
        for found in _WRONG.finditer(said):
            if found[1]:
                self.wrong.add("other answers than 2xx")
        total, rate = _TOTAL.search(said), _PER_SECOND.search(said)
        if total is None or rate is None:
            raise RuntimeError(f"wrk said {said!r}")
        self.micros.append(took / max(int(total[1]), 1))
        return float(rate[1])

    def _cpu_micros(self) -> float:
        """Return how long the server has had a processor: also in threads that have ended."""
        ticks = 0
        for pid in self._server.workers:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
            ticks += sum(map(int, stat.rpartition(")")[2].split()[11:13]))
        return 1e6 * ticks / os.sysconf("SC_CLK_TCK")


def check_answer(server: Server, app: App) -> None:
    """See that the candidate says that all is well."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", app.path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status not in {200, 204}:
        raise RuntimeError(f"{app.name}: {response.status} {body!r}\n{server.tail()}")


def beside(results: Results, title: str, command: str, apps: list[App], **environ: str) -> None:
    """Load the servers of `apps` in turn; the first is what all others are compared with."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loads: dict[str, Loaded] = {}
        for number, app in enumerate(apps):
            server = stack.enter_context(serve(app, command, folder / str(number), **environ))
            check_answer(server, app)
            loads[app.name] = Loaded(server, app.path)
        near = [app.name for app in apps if not app.peer]
        samples = take_turns(loads, rounds=results.rounds(5), closely=near)
    first = apps[0].name
    cost = statistics.median(loads[first].micros)
    rows = []
    for name in (first, CONTROL, *(app.name for app in apps[1:])):
        load = loads[first if name == CONTROL else name]
        if load.wrong:
            print(f"{name}: {', '.join(load.wrong)}", file=sys.stderr)
        micros = None if name == CONTROL else statistics.median(load.micros)
        rows.append(
            {
                "": name,
                "requests a second": samples.median(name),
                "beside the bare app": samples.ratio(name, first),
                "processor, µs a request": micros,
                "by processor, beside the bare app": None if micros is None else cost / micros,
            }
        )
    results.table(title, rows)


def main() -> None:
    results = Results("Measure the endpoint over servers, beside the peers.")
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    for server, (interface, command) in SERVERS.items():
        kind = "async" if interface == "asgi" else "sync"
        apps = [BARE[interface], ALIKE[interface], OURS[interface], *peers(interface, kind)]
        # For so long as this takes, ours answers from memory; the peers as they are shipped.
        beside(results, f"{server}: as shipped", command, apps, CHECKS=f"{kind} 3 0")
    for server, (interface, command) in SERVERS.items():
        if "sync" in server:
            continue  # it has one request at a time: nothing can be shared
        apps = [BARE[interface], BY_HAND[interface], OURS[interface], *peers(interface, "async")]
        title = f"{server}: nothing is kept (`max_age=0`)"
        beside(results, title, command, apps, CHECKS="async 3 0", MAX_AGE="0")
    results.finish()


if __name__ == "__main__":
    main()
