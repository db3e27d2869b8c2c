"""`healthmw watch`: ask for ever, and say what changes."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from healthmw.cli import _options
from healthmw.cli._ask import ask, pause
from healthmw.cli._health_json import question_type
from healthmw.cli._output import Paint, Progress, emit, nobody_reads, on_terminal
from healthmw.cli._resolve import KINDS, resolve
from healthmw.cli._signals import Signals
from healthmw.cli._text import clean, seconds
from healthmw.cli._verdict import exit_status, unknown_as_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import Any

    from healthmw.cli._target import Observation, Target
    from healthmw.cli._watch_table import Table

_BROKEN_PIPE = 128 + 13  # as a shell has it for SIGPIPE

_USAGE = "healthmw watch [options] TARGET ..."

_ABOUT = f"""\
Ask every TARGET again and again, and say in one line what changes, and after
how long. Each check is told by itself: of a MODULE:ATTRIBUTE all there is to
say, of a URL what the server lets the caller see (application/health+json). On
a terminal this is a living table where rich is installed (healthmw[watch]).

{KINDS}"""

_EXAMPLES = """\
examples:
  healthmw watch http://web-1:8000 http://web-2:8000
  healthmw watch --header "Authorization: Bearer $TOKEN" https://app.example.com
                                what the server tells those who have the token
  healthmw watch --interval 10 --json app:health >> changes.jsonl
  healthmw watch --count 30 --interval 1 postgresql://localhost/shop

exit status:
  0        with --count: all were well at the last look
  1        one was not well
  2        one could not be reached and the others were well; wrong usage
  128 + N  stopped by signal N: 130 for Ctrl-C, 143 for TERM; 141 where nobody
           reads any more (| head)"""


class Row(NamedTuple):
    """What is watched: a target, or one check of it."""

    word: str
    about: str
    """What is so, in a line."""
    told: str
    """What of it makes a change when it changes: a message may be new with each look."""
    seconds: float | None
    """How long it took; None where that is not to be seen."""
    label: str
    """What to call it below its target; the name of a target."""
    release: str = ""
    age: float | None = 0.0
    """How old the result was when it was seen, in seconds; None where that is not to be seen."""
    breaker: str = ""
    changed: float | None = None
    """When it had last changed as the server says, in seconds since the epoch."""
    recent: tuple[float, ...] = ()
    """How long the last runs took as the server says, the newest last."""


class Changes:
    """What was seen last of everything, and since when. Owned by the main thread."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[Row, float]] = {}
        self._changed: set[str] = set()

    def ago(self, name: str, row: Row) -> float | None:
        """Return how many seconds ago the verdict last changed; None where nobody knows."""
        if name in self._changed:
            return time.monotonic() - self._last[name][1]
        return None if row.changed is None else max(time.time() - row.changed, 0.0)

    def found(self, rows: dict[str, Row]) -> Iterator[tuple[str, Row, str | None, float]]:
        """Yield what is new or other than before: name, row, the word before, and its seconds."""
        now = time.monotonic()
        for name, row in rows.items():
            before = self._last.get(name)
            if before is None:
                self._last[name] = row, now
                yield name, row, None, 0.0
            elif (before[0].word, before[0].told) != (row.word, row.told):
                same = before[0].word == row.word
                self._last[name] = row, before[1] if same else now
                if not same:
                    self._changed.add(name)
                yield name, row, before[0].word, now - before[1]


def run(words: list[str]) -> int:
    """Run the command with the arguments `words`, and return the exit status."""
    args = make_parser().parse_args(words)
    changes = Changes()
    table = None if args.json else _table(changes)
    with unknown_as_json(sys.stdout, wanted=args.json), table.above() if table else nullcontext():
        targets = [resolve(text, args, kind=question_type(args)) for text in args.targets]
    names = _names(targets)
    progress = Progress(live_only=True)
    seen: list[Observation] = []
    left_alone = False
    with Signals() as signals, table or nullcontext():

        def stopped() -> bool:
            if table is None:
                progress.tick()
            else:
                table.tick()
            return signals.first is not None or left_alone or nobody_reads(sys.stdout)

        if table is not None:
            table.show({name: _unasked(name) for name in names})
        looks = 0
        while not stopped():
            found = ask(targets, timeout=args.timeout, stop=stopped)
            if found is None:
                break
            seen = found
            looks += 1
            rows = _rows(names, seen)
            found_changes = list(changes.found(rows))
            if table is not None:
                table.show(rows)
            else:
                progress.clear()
                told = [_tell(*change, as_json=args.json) for change in found_changes]
                left_alone = not all(told)
                well = sum(one.well for one in seen)
                progress.show(f"{well} of {len(seen)} well, looked {looks} times")
            if looks == args.count or pause(args.interval, stop=stopped):
                break
    if table is None:
        progress.clear()
    if signals.first is not None:
        return 128 + signals.first
    return _BROKEN_PIPE if left_alone or nobody_reads(sys.stdout) else exit_status(seen)


def _table(changes: Changes) -> Table | None:
    """Return a living table: on a terminal, and where rich is installed (the extra `watch`)."""
    if not on_terminal(sys.stdout):
        return None
    try:
        from healthmw.cli._watch_table import Table
    except ImportError:
        return None
    return Table(changes)


def _names(targets: Sequence[Target]) -> list[str]:
    """Return a name of its own for each target: two may differ in what is not shown of them."""
    met = Counter[str]()
    names = []
    for target in targets:
        met[target.name] += 1
        count = met[target.name]
        names.append(f"{target.name} ({count})" if count > 1 else target.name)
    return names


def _rows(names: Sequence[str], seen: Sequence[Observation]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for target, one in zip(names, seen, strict=True):
        report = one.report or {}
        checks = report.get("checks", {})
        # What the checks say of themselves is not told twice.
        about = report.get("reason") or "" if checks else one.text
        rows[target] = Row(
            word=one.word,
            about=about,
            told=f"{about} {one.release}",
            seconds=one.seconds,
            label=target,
            release=one.release or "",
        )
        for name, check in checks.items():
            rows[f"{target} {name}"] = _row(name, check)
    return rows


def _unasked(name: str) -> Row:
    return Row(word="", about="", told="", seconds=None, label=name, age=None)


def _row(name: str, check: dict[str, Any]) -> Row:
    about = check["detail"] or check["reason"]
    if check["detail"] and check["reason"] != check["status"]:
        about = f"{check['reason']}: {about}"
    if not check["critical"] and check["status"] in {"unknown", "failed"}:
        about += " (not critical)"
    return Row(
        word=check["status"].upper(),
        about=clean(about),
        told=check["reason"],
        seconds=check["seconds"],
        label=name,
        age=check.get("age_seconds", 0.0),
        breaker=check["breaker"] or "",
        changed=check.get("last_change"),
        recent=tuple(check.get("recent_seconds", ())),
    )


def _tell(name: str, row: Row, before: str | None, lasted: float, *, as_json: bool) -> bool:
    now = time.time()
    if as_json:
        import json

        found = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            "target": name,
            "verdict": row.word.lower(),
            "reason": row.about,
            "release": row.release or None,
            "breaker": row.breaker or None,
            "before": before and before.lower(),
            "seconds_before": None if before is None else round(lasted, 3),
        }
        return emit(json.dumps(found), sys.stdout)
    paint = Paint(sys.stdout)
    clock = paint.dim(time.strftime("%H:%M:%S", time.localtime(now)))
    release = f"release {row.release}" if row.release else ""
    about = ", ".join(filter(None, [row.about, release]))
    still = "still" if before == row.word else f"was {before}"
    was = f" ({still}, for {seconds(lasted)})" if before is not None else ""
    said = f"{name}: {about}" if about else name
    return emit(f"{clock}  {paint.verdict(row.word, 8)}  {said}{was}", sys.stdout)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = _options.parser("watch", usage=_USAGE, about=_ABOUT, examples=_EXAMPLES)
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="what to ask")
    add = parser.add_argument_group("the watch").add_argument
    add(
        "--interval",
        type=_options.duration,
        default=2.0,
        metavar="SECONDS",
        help="between two looks (default: %(default)g)",
    )
    add(
        "--timeout",
        type=_options.duration,
        default=10.0,
        metavar="SECONDS",
        help="for one look, to its last byte (default: %(default)g)",
    )
    add("--count", type=_options.count, metavar="N", help="end after so many looks")
    add("--json", action="store_true", help="each change as one JSON object on a line")
    _options.add_question(parser)
    return parser
