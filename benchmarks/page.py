"""Renders what the benchmarks have found into the page `docs/why/beside-the-peers.md`.

    python -m benchmarks.page

Its figures are those of `benchmarks/results`, which `make bench` writes; none is typed in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._measure import shown

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "why" / "beside-the-peers.md"
OURS = "healthmw"
_CORE = "anyio.run(...), Health"

Tables = dict[str, list[dict[str, Any]]]
_HEAD = """\
# Beside the peers

<!-- Rendered by `make bench` from benchmarks/results: don't edit. -->

What healthmw costs, beside what a user would pick instead and beside the least that anyone could
write by hand. Each figure is a median. The candidates take turns, round after round, so that a busy
machine is unfair to none; the first is measured twice, and *the same, as control* shows the noise:
a difference that is no larger says nothing. Compare figures within a table, not between machines.

`make bench` measures all of it anew and writes this page; `make bench ARGS=--quick` has a look
without writing, and `python -m benchmarks.NAME` measures one part. The peers are installed by the
scripts from the package index, in the versions that are shown, each into an environment of its own
in `.venvs`, with the versions of the frameworks and servers that healthmw itself is tested with.
`wrk` is Debian's package of that name, and light-health needs Python 3.13.
"""

_SECTIONS = """
passthrough: A request that passes through
In process, without a server: nanoseconds that a middleware adds to a request that is none of its
business. A framework's middleware is measured inside of that framework. The limit compares the path
and does nothing else. healthmw's knows also whether the response has begun, so that a
`DependencyUnavailable` becomes a 503 only where that can still be said; a wrapper by hand that
knows it too has a row of its own.

served: The endpoint over servers
`wrk` with 32 connections, and three checks that do nothing. Requests a second are as good as the
machine is quiet; what a request takes of the processor is steadier, and the goals go by it.
healthmw's answers have five headers, the bare app's two: a row shows what the server takes for the
other three.

hanging: A check that hangs
One check that never comes back, with a time limit of 1 s where the candidate has such an option.
Asked once, with 8 s of patience; then 60 times, ten at once, with 3 s each. A negative figure is an
answer before the limit: py-healthcheck's limit needs the main thread, and fails at once in any
other. Of the threads, some are gunicorn's, which has up to 64 and starts them as requests come.

herd: A thousand requests, fifty at once
As each is shipped. healthmw keeps a result for a second, fastapi-watch for a minute and
py-healthcheck for 27 seconds.

at_once: Many checks of 50 ms
Nothing is kept: milliseconds of one request that runs them all. Whoever needs more than two seconds
is asked once. By hand is all at once, each with a time limit, and no other promise.

guard_overhead: A guard around a call
A closed circuit breaker around a function that returns its argument.

import_cost: Import and memory
Processor time of importing, and the memory that is the process's own afterwards.

growth: What grows
With the number of checks, with gunicorn's workers, and over an hour of polls once a second.
"""
SECTIONS = {
    first.partition(": ")[0]: (first.partition(": ")[2], text)
    for first, _, text in (part.partition("\n") for part in _SECTIONS.strip().split("\n\n"))
}
"""The title and the words of each benchmark's part."""


def _row(tables: Tables, title: str, name: object = OURS) -> dict[str, Any]:
    return next(row for row in tables[title] if next(iter(row.values())) == name)


def _cell(title: str, column: str, name: object = OURS) -> Callable[[Tables], float | None]:
    return lambda tables: _row(tables, title, name)[column]


def _breakers(title: str) -> Callable[[Tables], float | None]:
    """Return what ours costs, beside the cheapest of the other breakers."""

    def ratio(tables: Tables) -> float:
        peers = ("pybreaker", "circuitbreaker", "purgatory", "aiobreaker")
        added = [r["added"] for r in tables[title] if r["wrapper"].startswith(peers)]
        return float(_row(tables, title)["added"] / min(added))

    return ratio


def _worst(column: str) -> Callable[[Tables], float | None]:
    return lambda tables: max(
        (_row(tables, title)[column] if _row(tables, title)[column] is not None else float("inf"))
        for title in tables
    )


def _windows(tables: Tables) -> float | None:
    """Return how many runs there were for each second begun, at worst."""
    rows = [_row(tables, title) for title in tables if "10 ms" in title]
    return max(float(row["runs of the check"] / row["seconds begun"]) for row in rows)


def _connections(tables: Tables) -> float | None:
    rows = [_row(tables, title) for title in tables if "PostgreSQL" in title]
    return max(float(row["connections opened"]) for row in rows)


def _mounting(tables: Tables) -> float | None:
    """Return what `Health` and the middleware take to import, in ms."""
    core = _row(tables, "milliseconds of processor time, over anyio at work", _CORE)
    rest = _row(tables, "milliseconds over the framework and `Health`", "import healthmw.asgi")
    return float(core["added"] + rest["added"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What healthmw means to reach. `least` where more is better."""

    what: str
    of: str
    """The benchmark that measures it."""
    found: Callable[[Tables], float | None]
    bound: float
    least: bool = False
    missed: str = ""
    """Why, where it is missed."""


_PASSES = "a request that passes through"
_ADDED, _BESIDE = "added, beside by hand", "by processor, beside the bare app"
_MORE = "three headers more (a row shows these alone), a look-up, messages that are new each time"
_KEPT = "`max_age=0`"
_EACH = (
    "each run has a task, a watch on what blocks the loop, a result and a history; part of it is "
    "the machine: by hand is in the same table"
)
GOALS = [
    Goal(
        what="passes through, ASGI, beside by hand",
        of="passthrough",
        found=_cell(f"ASGI: {_PASSES}", _ADDED),
        bound=1.15,
        missed="it wraps `send`, to know whether the response has begun: a row shows that",
    ),
    Goal(
        what="passes through, WSGI, beside by hand",
        of="passthrough",
        found=_cell(f"WSGI: {_PASSES}", _ADDED),
        bound=1.15,
        missed="it looks whether the app's body is a generator, which may still raise",
    ),
    *(
        Goal(
            what=f"from memory over {server}, by processor, beside the bare app",
            of="served",
            found=_cell(f"{server}: as shipped", _BESIDE),
            bound=0.97,
            least=True,
            missed=_MORE,
        )
        for server in ("uvicorn", "gunicorn sync", "gunicorn gthread")
    ),
    *(
        Goal(
            what=f"nothing kept, over {server}, by processor, beside the bare app",
            of="served",
            found=_cell(f"{server}: nothing is kept ({_KEPT})", _BESIDE),
            bound=bound,
            least=True,
            missed="whoever waits is woken for an answer of its own",
        )
        for server, bound in (("uvicorn", 0.65), ("gunicorn gthread", 0.38))
    ),
    *(
        Goal(
            what=f"{number} async checks of 50 ms, {interface}, ms",
            of="at_once",
            found=_cell(f"{interface}: async checks of 50 ms", f"{number} checks, ms"),
            bound=bound,
            missed=_EACH,
        )
        for interface in ("ASGI", "WSGI")
        for number, bound in (("10", 52), ("100", 56), ("1,000", 80))
    ),
    *(
        Goal(
            what=f"{number} sync checks of 50 ms, ASGI, ms",
            of="at_once",
            found=_cell("ASGI: sync checks of 50 ms", f"{number} checks, ms"),
            bound=bound,
            missed="the machine was busy: by hand is in the same table",
        )
        for number, bound in (("10", 55), ("100", 110))
    ),
    *(
        Goal(
            what=f"a check that hangs: {what}, at worst",
            of="hanging",
            found=_worst(column),
            bound=bound,
            missed="the worst of four, on a machine that was busy: see the tables",
        )
        for what, column, bound in (
            ("answer beyond its timeout, s", "answer beyond 1 s, s", 0.1),
            ("median of 60 polls, ms", "median answer, ms", 25),
        )
    ),
    Goal(
        what="a check that hangs: checks running after 60 polls",
        of="hanging",
        found=_worst("checks running"),
        bound=1,
    ),
    Goal(
        what="a check that hangs: threads more than before, ASGI, at worst",
        of="hanging",
        found=lambda tables: _worst("more threads")(
            {title: rows for title, rows in tables.items() if title.startswith("ASGI")}
        ),
        bound=2,
    ),
    Goal(
        what="1,000 requests: runs of the check for each second begun",
        of="herd",
        found=_windows,
        bound=1,
    ),
    Goal(
        what="1,000 requests: connections opened at PostgreSQL",
        of="herd",
        found=_connections,
        bound=1,
    ),
    *(
        Goal(
            what=f"{what}, guarded: added, beside the cheapest other breaker",
            of="guard_overhead",
            found=_breakers(title),
            bound=1,
        )
        for what, title in (("a function", "A function"), ("a coroutine", "A coroutine function"))
    ),
    Goal(
        what="`import healthmw`, ms over `import anyio`",
        of="import_cost",
        found=_cell(
            "milliseconds of processor time, over import anyio", "added", "import healthmw"
        ),
        bound=5,
    ),
    Goal(
        what="the same with `Health` and the ASGI middleware, over anyio at work",
        of="import_cost",
        found=_mounting,
        bound=5,
        missed="the modules of checks, breakers and the endpoint",
    ),
    Goal(
        what="memory of its own when mounted (ASGI), MiB",
        of="import_cost",
        found=_cell("resident memory over anyio at work", "MiB", "ASGI, mounted, three checks"),
        bound=1.5,
        missed="its modules, and those of the standard library that nothing had loaded before: the"
        " next row is without these",
    ),
    Goal(
        what="the same in an app of FastAPI",
        of="import_cost",
        found=_cell(
            "resident memory over anyio at work",
            "MiB",
            "ASGI, mounted, three checks, in an app of FastAPI",
        ),
        bound=1.5,
    ),
    Goal(
        what="an answer from memory with 1,000 checks, beside one with 1",
        of="growth",
        found=_cell(
            "ASGI: an answer from memory, by number of checks", "beside 1 check", "1,000 checks"
        ),
        bound=1.1,
    ),
    Goal(
        what="an hour of polls: KiB more than after 10 minutes",
        of="growth",
        found=_cell("An hour of polls, 10 checks: memory", "more than after 10", 60),
        bound=16,
    ),
]


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a table in Markdown."""
    head = list(rows[0])
    # Numbers end below one another; a column without a name has words.
    rule = "".join("---:|" if name else "---|" for name in head[1:])
    lines = [f"| {' | '.join(head)} |", f"|---|{rule}"]
    lines += [f"| {' | '.join(shown(value) for value in row.values())} |" for row in rows]
    return "\n".join(lines)


def _goals(results: dict[str, dict[str, Any]]) -> str:
    rows = []
    for goal in GOALS:
        if goal.of not in results:
            continue
        found = goal.found(results[goal.of]["tables"])
        if found is None:
            continue
        reached = found >= goal.bound if goal.least else found <= goal.bound
        rows.append(
            {
                "goal": goal.what,
                "bound": f"{'≥' if goal.least else '≤'} {goal.bound:g}",
                "found": found,
                "": "reached"
                if reached
                else f"**missed**{': ' if goal.missed else ''}{goal.missed}",
            }
        )
    return table(rows)


def _machine(results: dict[str, dict[str, Any]]) -> str:
    found = {
        json.dumps(result["about"], sort_keys=True): result["about"] for result in results.values()
    }
    lines = []
    for about in found.values():
        versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
        lines.append(
            f"- {about['date']}: {about['processor']}, {about['cores']} cores, {about['system']}, "
            f"Python {about['python']}; {versions}"
        )
    return "\n".join(lines)


def page(results: dict[str, dict[str, Any]]) -> str:
    """Return the page with these results."""
    parts = [_HEAD, "## The machine\n", f"{_machine(results)}\n", "## The goals\n", _goals(results)]
    for name, (title, text) in SECTIONS.items():
        if name not in results:
            continue
        parts.append(f"\n## {title}\n\n{text}\n\n`python -m benchmarks.{name}`\n")
        parts += [f"### {t}\n\n{table(rows)}\n" for t, rows in results[name]["tables"].items()]
    return "\n".join(parts).rstrip() + "\n"


def committed() -> dict[str, dict[str, Any]]:
    """Return the results that are kept, by benchmark."""
    files = sorted(RESULTS.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


if __name__ == "__main__":
    PAGE.write_text(page(committed()), encoding="utf-8")
