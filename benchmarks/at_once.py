"""How long one answer takes that has 10, 100 or 1,000 checks of 50 ms behind it.

Nothing is kept, so that every request runs them all. The limit is by hand: all at once, each with a
time limit. Whoever needs more than two seconds is asked only once.

    python -m benchmarks.at_once [--json FILE]
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._apps import BY_HAND, GTHREAD, OURS, UVICORN, App, peers, serve
from benchmarks._client import ask
from benchmarks._measure import CONTROL, Results, take_turns

if TYPE_CHECKING:
    from tests.servers.boot import Server

_SLOW = 2.0
_SECONDS = "0.05"
NUMBERS = {"async": (10, 100, 1000), "sync": (10, 100)}
COMMANDS = {"asgi": UVICORN, "wsgi": GTHREAD}


class Asked:
    """A candidate: the milliseconds that one request takes."""

    def __init__(self, server: Server, app: App) -> None:
        self._server, self._app = server, app
        self._slow: float | None = None

    def __call__(self) -> float:
        if self._slow is not None:
            return self._slow
        answer = ask(self._server.port, self._app.path, bound=120)
        if answer.status not in {200, 204}:
            raise RuntimeError(f"{self._app.name}: {answer.status}\n{self._server.tail()}")
        if answer.took > _SLOW:
            self._slow = answer.took * 1000
        return answer.took * 1000


def measure(results: Results, interface: str, kind: str) -> None:
    apps = [BY_HAND[interface], OURS[interface], *peers(interface, kind)]
    names = [apps[0].name, CONTROL, *(app.name for app in apps[1:])]
    rows: dict[str, dict[str, Any]] = {name: {"": name} for name in names}
    for number in NUMBERS[kind]:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            asked = {
                app.name: Asked(
                    stack.enter_context(
                        serve(
                            app,
                            COMMANDS[interface],
                            folder / str(at),
                            CHECKS=f"{kind} {number} {_SECONDS}",
                            MAX_AGE="0",
                        )
                    ),
                    app,
                )
                for at, app in enumerate(apps)
            }
            samples = take_turns(asked, rounds=results.rounds(15))
        for name in names:
            rows[name][f"{number:,} checks, ms"] = samples.median(name)
    results.table(f"{interface.upper()}: {kind} checks of 50 ms", list(rows.values()))


def main() -> None:
    results = Results("Measure how long many checks take.")
    for interface in COMMANDS:
        for kind in NUMBERS:
            measure(results, interface, kind)
    results.finish()


if __name__ == "__main__":
    main()
