"""Asking for `application/health+json`: the checks of a server, as far as one may see.

The form is draft-inadarei-api-health-check-06, with what healthmw adds to it. All of it comes from
outside: a member that is not what it should be is passed over.
"""

from __future__ import annotations

import contextlib
import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

from healthmw.cli._target import Observation, Question
from healthmw.cli._text import clean

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from healthmw.cli._http import Answer

_TYPE = "application/health+json"
_OWN = ":responseTime"  # healthmw has one such entry a check, and its measurements beside it
_WORDS = {
    "pass": "okay", "ok": "okay", "up": "okay", "warn": "degraded",
    "fail": "failed", "error": "failed", "down": "failed",
}  # fmt: skip
"""The draft's words for a status, and those that it lets pass."""

_MARKS = {"okay": "[+]", "degraded": "[~]", "unknown": "[?]", "failed": "[-]"}


class DetailedQuestion(Question):
    """Asks for the checks too. An answer in another form is judged as that of any question."""

    __slots__ = ()

    accept = f"{_TYPE}, text/plain;q=0.5, */*;q=0.1"
    body_limit = 4 * 1024 * 1024
    """A check that may be seen in full is about 2 KiB."""

    def observed(self, answer: Answer, *, seconds: float) -> Observation:
        """Return what `answer` shows, with a report where it has one."""
        document = _document(answer)
        if document is None:
            return super().observed(answer, seconds=seconds)
        report = _report(document)
        well = answer.status in self.statuses and report["status"] in {"okay", "degraded"}
        if self.strict and report["status"] == "degraded":
            well = False
        return Observation(
            well=well,
            text=_said(answer, document, report),
            seconds=seconds,
            answer=answer,
            health=report["status"],
            release=report["release"],
            lines=[_line(name, check) for name, check in report["checks"].items()],
            report=report,
        )


def question_type(args: argparse.Namespace) -> type[Question]:
    """Return how to ask for the checks: what a body is to be is told of one that has no checks."""
    return Question if args.any_body or args.expect is not None else DetailedQuestion


def _document(answer: Answer) -> dict[str, Any] | None:
    """Return the document that `answer` has, or None."""
    if answer.headers.get_content_type() != _TYPE or answer.cut:
        return None
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    status = _object(found).get("status")
    return found if isinstance(status, str) and status in _WORDS else None


def _report(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document in the form that a `Health` in this process is reported in."""
    ours = _object(document.get("healthmw"))
    return {
        "group": _text(ours.get("group")),
        "status": _status(document, ours),
        "reason": _text(ours.get("reason")),
        "release": _text(document.get("releaseId")) or None,
        "checks": dict(_checks(_object(document.get("checks")), only_ours=bool(ours))),
    }


def _checks(entries: dict[str, Any], *, only_ours: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, entry in entries.items():
        one = _object(entry[0] if isinstance(entry, list) and entry else None)
        ours = _object(one.get("healthmw"))
        if not one or (only_ours and not (ours and key.endswith(_OWN))):
            continue
        status = _status(one, ours)
        yield (
            clean(key.removesuffix(_OWN), 80),
            {
                "status": status,
                "reason": _text(ours.get("reason")) or status,
                "critical": ours.get("critical") is not False,
                "detail": _text(one.get("output")),
                "seconds": _number(ours.get("durationSeconds")),
                "age_seconds": _number(ours.get("ageSeconds")),
                "breaker": _text(_object(ours.get("breaker")).get("state")) or None,
                "last_change": _time(ours.get("lastChange")),
                "recent_seconds": _numbers(_object(ours.get("history")).get("recentSeconds")),
            },
        )


def _status(one: dict[str, Any], ours: dict[str, Any]) -> str:
    """Return `okay`, `degraded`, `unknown` or `failed`: the draft's `fail` is one of two."""
    word = one.get("status")
    said = _WORDS.get(word, "unknown") if isinstance(word, str) else "unknown"
    return "unknown" if said == "failed" and ours.get("status") == "unknown" else said


def _said(answer: Answer, document: dict[str, Any], report: dict[str, Any]) -> str:
    """Say in a line what `answer` says."""
    if report["status"] in {"okay", "degraded"}:
        return f"{answer.status} OKAY{' (degraded)' * (report['status'] == 'degraded')}"
    return f"{answer.status} {_text(document.get('output')) or 'FAILED'}"


def _line(name: str, check: dict[str, Any]) -> str:
    """Return a check as `render_verbose` has it."""
    notes = [] if check["reason"] == check["status"] else [check["reason"]]
    if check["seconds"] is not None:
        notes.append(f"{check['seconds'] * 1000:.0f} ms")
    if not check["critical"]:
        notes.append("not critical")
    line = f"{_MARKS[check['status']]} {name} {check['status']}"
    line += f" ({', '.join(notes)})" * bool(notes)
    return f"{line}: {check['detail']}" if check["detail"] else line


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    """Return `value` if it is a number of seconds that there can be."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
            return number if math.isfinite(number) and number >= 0 else None
    return None


def _numbers(value: object) -> list[float]:
    found = map(_number, value) if isinstance(value, list) else ()
    return [number for number in found if number is not None]


def _time(value: object) -> float | None:
    """Return an aware time in ISO 8601 as seconds since the epoch."""
    with contextlib.suppress(ValueError, OverflowError):
        when = datetime.fromisoformat(value) if isinstance(value, str) else None
        return when.timestamp() if when is not None and when.tzinfo is not None else None
    return None
