"""What befalls the app of the matrix or what it needs, and what each kind of check has to say.

`python -m tests.abuse.systems.faults` writes the page `docs/reference/abuse-table.md`: the verdicts
from what the tests expect, for it is they that see whether it is so, and how much longer the app's
own route took from what `make abuse-table` has measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "abuse-table.md"
SLOWDOWNS = Path(__file__).with_name("slowdowns.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """Medians, in microseconds, of a route of the app, and of the bare app without healthmw."""

    ours: int
    bare: int
    in_all: float = 1.0
    """What all answers took together, beside those of the bare app: no median shows a few that had
    to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowdown:
    """How long a route of the app takes with nothing the matter, and during a fault."""

    usual: Took
    during: Took

    @property
    def ours(self) -> float:
        return self.during.ours / self.usual.ours

    @property
    def bare(self) -> float:
        return self.during.bare / self.usual.bare

    @property
    def by_healthmw(self) -> float:
        """What the fault, and the machine, does to the bare app too is not healthmw's doing."""
        return self.ours / self.bare

    @property
    def in_all(self) -> float:
        """The same of all answers together."""
        return self.during.in_all / self.usual.in_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong. `check` is the name of the check that has to fail, or nothing."""

    name: str
    what: str
    check: str = ""
    reason: str = ""
    """The reason code of the failure; empty where more than one is right."""
    others: frozenset[str] = frozenset()
    """Checks that may fail as well, or before it, as the matter is."""
    hurts: str = ""
    """How the app is to hurt itself."""
    root: bool = False
    """Whether only root can make it happen."""

    @property
    def critical(self) -> str:
        return "failed" if self.check else "okay"

    @property
    def minor(self) -> str:
        return "degraded" if self.check else "okay"


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            name="stopped",
            what="the dependency is not there: its port refuses",
            check="redis",
            reason="failed",
        ),
        Fault(
            name="paused",
            what="the dependency's process is frozen (SIGSTOP)",
            check="redis",
            reason="timeout",
        ),
        Fault(
            name="slow",
            what="its answers arrive byte by byte, and too late",
            check="redis",
            reason="timeout",
        ),
        Fault(name="garbage", what="its answers are bytes of no protocol", check="redis"),
        Fault(name="reset", what="its connections are reset in the middle", check="redis"),
        Fault(
            name="black hole",
            what="packets to it vanish, in a network namespace of its own",
            check="hole",
            reason="timeout",
            root=True,
        ),
        Fault(
            name="connection limit",
            what="it has all the connections that it takes",
            check="redis",
            reason="failed",
        ),
        Fault(
            name="disk full",
            what="no space is left in a folder that the app needs (a small tmpfs)",
            check="folder",
            reason="failed",
            root=True,
        ),
        Fault(
            name="DNS gone",
            what="names do not resolve",
            check="named",
            reason="failed",
            hurts="names",
        ),
        Fault(
            name="event loop blocked",
            what="a route of the app blocks for 2 s, again and again (WSGI: a thread of it)",
            hurts="block",
        ),
        Fault(
            name="thread pool exhausted",
            what="all threads of asyncio's and anyio's pools are taken (WSGI: all of the server's "
            "but one)",
            hurts="threads",
        ),
        Fault(
            name="memory pressure",
            what="the process may have little more memory (RLIMIT_AS), and a check needs much",
            check="memory",
            reason="failed",
            hurts="memory",
        ),
        Fault(
            name="descriptors exhausted",
            what="the process can open no file and no socket any more",
            check="named",
            reason="failed",
            others=frozenset({"folder", "hole"}),
            hurts="files",
        ),
        Fault(
            name="clock stepped",
            what="the wall clock, as the process sees it (`time.time`), goes back by a day",
            hurts="clock",
        ),
    )
}

_HEAD = """\
# The abuse table

<!-- Written by `make abuse-table` from what tests/abuse expects and measures: don't edit. -->

What an app answers while something goes wrong with it, or with what it needs. The tests see it on
real servers: uvicorn (ASGI) and gunicorn's gthread workers (WSGI), with a real Redis and a proxy
before it. Each fault is put to four `Health`s at once: checks that are critical or not, run on
request or in the background. In every one of these cells, and in every run of the tests:

- the verdict turns from `okay` to the one below, and to no other on the way; it does not waver
  while the fault lasts, and it is the check of that dependency that fails, and no other;
- no answer comes after its deadline, and the app's own routes are served all the while;
- once the fault is over, all is `okay` again by itself, in the same process;
- then no more threads, files, tasks and connections are held than before.

| fault | what happens | critical | not critical |
|---|---|---|---|
"""

_TAIL = """
A critical failure is answered by 503 and `FAILED`. `degraded` is a pass: 200 and `OKAY`. While the
event loop is blocked nothing on it can answer; what the table says is that the block is over, and
no healthy check was failed for it.
"""


_SLOWDOWNS = """
## The app's own route

How long a route of the app that needs nothing takes while the fault lasts, in multiples of what it
took before; the four `Health`s are asked twenty times a second each, then as before. The same app
without healthmw runs beside it. It is asked in turn, and what befalls the process befalls it as
well: what it suffers itself is the app's own affair, or the machine's. These are medians of
{rounds} answers (where the loop is blocked, of one answer a block){about}.

| fault | uvicorn | without healthmw | gunicorn | without healthmw |
|---|---|---|---|---|
"""

_HONESTLY = """
While its event loop is blocked for 2 s an app answers nobody, whatever is mounted in it, and so it
does at once when it is free again. Of a WSGI app one thread is blocked, and the others answer.
"""


def measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SLOWDOWNS.read_text(encoding="utf-8"))
    return found


def slowdowns(interface: str) -> dict[str, Slowdown]:
    """Return what was measured of each fault."""
    return {
        fault: Slowdown(usual=Took(**took["usual"]), during=Took(**took["during"]))
        for fault, took in measured()[interface].items()
    }


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def page() -> str:
    verdicts = "".join(
        f"| {fault.name} | {fault.what} | `{fault.critical}` | `{fault.minor}` |\n"
        for fault in FAULTS.values()
    )
    asgi, wsgi = slowdowns("asgi"), slowdowns("wsgi")
    slower = "".join(
        f"| {name} | {_times(asgi[name].ours)} | {_times(asgi[name].bare)} "
        f"| {_times(wsgi[name].ours)} | {_times(wsgi[name].bare)} |\n"
        for name in FAULTS
    )
    found = measured()
    about, versions = found["about"], found["about"]["versions"]
    shown = (
        f", on Python {about['python']}, uvicorn {versions['uvicorn']},\n"
        f"gunicorn {versions['gunicorn']} and {about['cores']} cores of an {about['processor']}"
    )
    head = _SLOWDOWNS.format(rounds=found["rounds"], about=shown)
    return _HEAD + verdicts + _TAIL + head + slower + _HONESTLY


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
