"""What `smoke` says at the end: for a person, and as JSON for a script."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from healthmw.cli._output import Paint
from healthmw.cli._text import clean, seconds
from healthmw.cli._trial import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from healthmw.cli._log import Excerpt
    from healthmw.cli._process import Ending

_BODY_LINES = 20


def as_text(outcome: Outcome, *, ending: Ending, status: int | None, log: Excerpt) -> str:
    """Return the verdict, and where it is not a pass, the last answer and the end of the log."""
    paint = Paint(sys.stdout)
    word = paint.verdict(outcome.verdict.upper())
    lines = [f"{word}  {outcome.reason}{_release(outcome)}"]
    if outcome.verdict is not Verdict.PASSED:
        lines += ["", *_answer(outcome, ended=status is not None), "", *_log(log, paint)]
    if ending.killed:
        what = f"{_processes(ending.killed)} had not ended {seconds(ending.waited)} after TERM"
        lines += ["", f"Note: {what}: killed."]
    if ending.left:
        lines.append(f"Note: these could not be ended, pid {', '.join(map(str, ending.left))}.")
    return "\n".join(lines)


def as_json(
    outcome: Outcome,
    *,
    ending: Ending,
    status: int | None,
    code: int,
    url: str,
    log: Excerpt,
) -> dict[str, Any]:
    """Return the same for `json.dumps`; the documentation lists the keys."""
    return {
        "verdict": outcome.verdict.value,
        "exit_status": code,
        "reason": outcome.reason,
        "url": url,
        "seconds": round(outcome.seconds, 3),
        "requests": outcome.requests,
        "answer": None if outcome.last is None else outcome.last.as_json(),
        "server": {
            "exit_status": status,
            "stop_seconds": round(ending.seconds, 3),
            "killed": ending.killed,
            "left": list(ending.left),
        },
        "log": [clean(line) for line in log.lines],
        "log_lines": log.total,
    }


def _release(outcome: Outcome) -> str:
    if outcome.last is None or outcome.last.release is None:
        return ""
    return f" (release {outcome.last.release})"


def _answer(outcome: Outcome, *, ended: bool) -> Iterator[str]:
    if outcome.last is None or outcome.last.answer is None:
        yield f"No answer to {outcome.requests} request{'s' * (outcome.requests != 1)}."
        if not (outcome.listening or ended):
            yield "Nobody listens there: does the server take its port from PORT?"
        return
    answer = outcome.last.answer
    yield f"The last answer: {answer.status} {clean(answer.phrase)}".rstrip()
    lines = answer.body.splitlines()
    yield from (f"    {clean(line)}" for line in lines[:_BODY_LINES])
    if len(lines) > _BODY_LINES or answer.cut:
        yield "    ..."
    if not lines:
        yield "    (its body is empty)"


def _log(log: Excerpt, paint: Paint) -> Iterator[str]:
    if not log.total:
        yield "The server wrote no log."
        return
    part = f", {len(log.lines):,} of {log.total:,} lines" if log.total > len(log.lines) else ""
    own = " (those about healthmw's own requests are left out)" if log.own else ""
    yield f"The server's log{part}{own}:"
    yield from (f"  {paint.dim('|')} {clean(line)}".rstrip() for line in log.lines)


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"
