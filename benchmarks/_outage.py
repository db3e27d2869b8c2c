"""An example under load, while the service that it calls hangs, dies and comes back.

All of them are real processes: the app under the server of its Procfile, the service it calls, and
between them nothing. What is seen from outside is what the load generator got; when the circuits
opened and closed, and which calls went out, the app's processes write down (`_observed.py`).
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._load import Load, Reply
from examples._servers import Server, ask, environment, procfile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
METHODS, PAGE = "/payment-methods", "/health_check"
RATES: Mapping[str, float] = {METHODS: 50.0, PAGE: 10.0}  # a second

_WARM_UP = 1.0
_OPENS_WITHIN = 15.0
_NOTICED_WITHIN = 30.0  # a breaker's longest wait
# A call is let through first and written down next; between the two another thread may open the
# circuit. It is much shorter than the shortest wait for a trial.
_WRITTEN_WITHIN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many seconds each phase takes. The breaker's first wait is `open_for`."""

    healthy: float
    paused: float
    """From the opening of all circuits."""
    killed: float
    recovered: float
    open_for: float | None = None


# Long enough for one trial that fails by time-out and one that is refused; a trial comes 5 s after
# the opening, or a little sooner, and the next up to 10 s later.
FULL = Plan(healthy=5.0, paused=6.5, killed=10.5, recovered=3.0)
QUICK = Plan(healthy=1.5, paused=2.2, killed=0.7, recovered=1.0, open_for=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Something that a process of the app has written down."""

    pid: int
    what: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What happened, and when: monotonic seconds, the same clock for all processes."""

    replies: list[Reply]
    seen: list[Seen]
    measured: float
    """When the load had warmed up."""
    paused: float
    opened: float
    """When the last of the app's processes had opened its circuit."""
    killed: float
    restored: float
    """When it was started again; it took until `up` to listen."""
    up: float
    closed: float
    """When the last of them had closed it again."""

    @property
    def trials_by_customers(self) -> int:
        """How many calls of customers' requests went out while the circuit was not closed."""
        found = 0
        opened: dict[int, float] = {}
        for line in sorted(self.seen, key=lambda line: line.at):
            if line.what == "open":
                opened.setdefault(line.pid, line.at)
            elif line.what == "closed":
                opened.pop(line.pid, None)
            elif line.what == "call" and line.at > opened.get(line.pid, line.at) + _WRITTEN_WITHIN:
                found += 1
        return found

    @property
    def trials_that_failed(self) -> int:
        """How often a trial has opened the circuit again: the probe's, if no customer made any."""
        return sum(line.what == "half_open" for line in self.seen) - sum(
            line.what == "closed" for line in self.seen
        )


class _App:
    """An example and its payments service, in `folder`, ended with `stack`."""

    def __init__(
        self, name: str, folder: Path, stack: ExitStack, *, plan: Plan, without: str
    ) -> None:
        home = EXAMPLES / name
        if without:
            home = folder / name
            shutil.copytree(EXAMPLES / name, home)
            source = (home / "app.py").read_text()
            if without not in source:
                raise ValueError(f"there is no {without!r} in the example to leave out")
            (home / "app.py").write_text(source.replace(without, ""))
        self._written = folder / "observed.jsonl"
        self.payments = Server(
            "python downstream.py", cwd=EXAMPLES, log=folder / "payments.log", env=environment()
        )
        variables = {
            "DATABASE_URL": f"sqlite:///{folder / 'shop.db'}",
            "DOWNSTREAM_URL": self.payments.url,
            "OBSERVED": str(self._written),
            "PYTHONPATH": str(ROOT),
        }
        if plan.open_for is not None:
            variables["OPEN_FOR"] = str(plan.open_for)
        env = environment(**variables)
        web = procfile(EXAMPLES / name, "web")
        web = web.replace("app:create_app", "benchmarks._observed:create_app")
        self.server = Server(web, cwd=home, log=folder / "server.log", env=env)
        subprocess.run(["alembic", "upgrade", "head"], cwd=home, env=env, check=True, timeout=60)
        for server in (self.payments, self.server):
            stack.callback(server.stop)
            server.start()
        for server in (self.payments, self.server):
            server.wait_until_up()
        self.until("said that it is well", lambda: ask(self.server.url + PAGE).health == "okay")

    def seen(self) -> list[Seen]:
        with self._written.open(encoding="utf-8") as file:
            return [Seen(**json.loads(line)) for line in file if line.endswith("\n")]

    def last(self, what: str, *, since: float) -> float | None:
        """Return when all processes have come to `what`, or None while some have not."""
        seen = self.seen()
        first: dict[int, float] = {}
        for line in seen:
            if line.what == what and line.at >= since:
                first.setdefault(line.pid, line.at)
        if {line.pid for line in seen if line.what == "started"} - first.keys():
            return None
        return max(first.values())

    def until(self, what: str, happened: Callable[[], object], within: float = 30.0) -> None:
        """Wait. Raises `RuntimeError`, with the end of the app's log, when it doesn't happen."""
        deadline = time.monotonic() + within
        while not happened():
            if time.monotonic() > deadline:
                log = self.server.log.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"after {within:g} s the app has not {what}; its log:\n{log}")
            time.sleep(0.1)

    def kill_payments(self) -> None:
        self.payments.signal(signal.SIGKILL)
        self.payments.stop()


def run(name: str, folder: Path, *, plan: Plan = FULL, without: str = "") -> Outage:
    """Run the example `name` through an outage; `without` is left out of its source."""
    with ExitStack() as stack:
        app = _App(name, folder, stack, plan=plan, without=without)
        load = stack.enter_context(Load(app.server.url, RATES))
        time.sleep(_WARM_UP)
        measured = time.monotonic()
        time.sleep(plan.healthy)
        paused = time.monotonic()
        app.payments.signal(signal.SIGSTOP)
        app.until("opened its circuit", lambda: app.last("open", since=paused), _OPENS_WITHIN)
        opened = app.last("open", since=paused) or 0.0
        time.sleep(max(0.0, opened + plan.paused - time.monotonic()))
        killed = time.monotonic()
        app.kill_payments()
        time.sleep(plan.killed)
        restored = time.monotonic()
        app.payments.start()
        app.payments.wait_until_up()
        up = time.monotonic()
        app.until("noticed the return", lambda: app.last("closed", since=restored), _NOTICED_WITHIN)
        closed = app.last("closed", since=restored) or 0.0
        time.sleep(plan.recovered)
        load.stop()
        return Outage(
            replies=load.replies,
            seen=app.seen(),
            measured=measured,
            paused=paused,
            opened=opened,
            killed=killed,
            restored=restored,
            up=up,
            closed=closed,
        )


def phases(outage: Outage) -> Iterator[tuple[str, list[Reply]]]:
    """Return the requests by phase. One that was under way when a phase ended went through both."""
    starts = [outage.opened, outage.killed, outage.restored, outage.closed, float("inf")]
    names = ["paused, open", "killed, open", "back, open", "recovered"]
    replies = [reply for reply in outage.replies if reply.began >= outage.measured]
    yield "healthy", [reply for reply in replies if reply.ended <= outage.paused]
    yield (
        "paused, closed",
        [reply for reply in replies if reply.ended > outage.paused and reply.began < outage.opened],
    )
    for name, start, end in zip(names, starts, starts[1:], strict=False):
        yield name, [reply for reply in replies if start <= reply.began < end]
