"""What befalls the app of the matrix or what it needs, and what each kind of check has to say.

`python -m tests.abuse.systems.faults` writes the page `docs/reference/abuse-table.md`, from what
the tests expect; it is they that see whether it is so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "abuse-table.md"


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
            what="a route of the app blocks for 2 s (WSGI: a thread of it)",
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

<!-- Written by `make abuse-table` from what tests/abuse expects: don't edit. -->

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


def page() -> str:
    rows = [
        f"| {fault.name} | {fault.what} | `{fault.critical}` | `{fault.minor}` |\n"
        for fault in FAULTS.values()
    ]
    return _HEAD + "".join(rows) + _TAIL


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
