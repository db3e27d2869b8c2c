"""`application/health+json`, as draft-inadarei-api-health-check-06 has it.

What the draft has no member for stands in an object named `healthmw`: at the top, and in the first
element of `<check>:responseTime`. `docs/health-schema.json` describes it all.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from healthmw._model import Reason, Status
from healthmw._view import Level

if TYPE_CHECKING:
    from datetime import datetime

    from healthmw._breaker_state import BreakerSnapshot
    from healthmw._history import History
    from healthmw._model import Measurement, Result
    from healthmw._view import Facts, View

__all__ = ("CONTENT_TYPE", "render")

CONTENT_TYPE = "application/health+json"

_CHANGES_SHOWN = 10
_RUNS_SHOWN = 30
_NOTES: dict[Reason | None, str] = {
    Reason.DRAINING: "draining: this process is about to stop",
    Reason.NO_CHECKS: "no check is registered",
}
_WORDS = {
    Status.OKAY: "pass",
    Status.DEGRADED: "warn",
    Status.UNKNOWN: "fail",
    Status.FAILED: "fail",
}
_UNITS = {
    "seconds": "s",
    "milliseconds": "ms",
    "ms": "ms",
    "bytes": "bytes",
    "percent": "%",
    "ratio": "1",
}


def render(view: View) -> str:
    """Return `view` as one line of JSON, in ASCII."""
    return json.dumps(_document(view), separators=(",", ":"))


def _document(view: View) -> dict[str, Any]:
    """Return `view` as the draft's document."""
    report, about = view.report, view.about
    # A group may fail where the worst is DEGRADED: body and code say the same.
    status = _WORDS[report.status] if report.ok else "fail"
    if view.level is Level.SUMMARY:
        return _without_empty({"status": status, "releaseId": report.release})
    notes = [_NOTES[report.reason]] if report.reason in _NOTES else []
    if view.omitted:
        notes.append(f"{view.omitted} checks are left out: there are too many")
    return _without_empty(
        {
            "status": status,
            "version": about.version,
            "releaseId": report.release,
            "serviceId": about.service,
            "description": about.description,
            "notes": notes,
            "output": "" if report.status is Status.OKAY else _output(view),
            "links": dict(about.links),
            "checks": _checks(view),
            "healthmw": _without_empty(
                {
                    "group": report.group,
                    "status": report.status.value,
                    "reason": report.reason,
                    "level": view.level.value,
                    "instance": view.instance,
                    "fingerprint": _fingerprint(view.needs),
                    "needs": list(view.needs),
                }
            ),
        }
    )


def _fingerprint(needs: tuple[str, ...]) -> str | None:
    """Return a short word that is the same for releases that need the same."""
    import hashlib

    return hashlib.sha256("\n".join(needs).encode()).hexdigest()[:12] if needs else None


def _output(view: View) -> str:
    """Name what is at fault, as far as the reader may know."""
    if view.report.reason in _NOTES:
        return _NOTES[view.report.reason]
    guilty = [f"{one.name}: {one.detail or one.reason.value}" for one in view.report.at_fault]
    more = [f"and {len(guilty) - 20} more"] if len(guilty) > 20 else []
    return "; ".join(guilty[:20] + more)


def _checks(view: View) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for result in view.report.results.values():
        facts = view.facts.get(result.name)
        found[f"{result.name}:responseTime"] = [_check(result, facts)]
        for name, value in result.measurements.items():
            key = f"{result.name}:{name.replace(':', '_')}"
            found.setdefault(key, []).append(_measurement(result, name, value))
    return found


def _check(result: Result, facts: Facts | None) -> dict[str, Any]:
    ran = result.when is not None and result.duration > 0
    return _without_empty(
        {
            "componentId": result.name,
            "componentType": facts.component if facts else None,
            "observedValue": round(result.duration * 1000, 3) if ran else None,
            "observedUnit": "ms" if ran else None,
            "status": _WORDS[result.status],
            "time": _time(result.when),
            "output": result.detail if result.status is not Status.OKAY else "",
            "healthmw": {
                "status": result.status.value,
                "reason": result.reason.value,
                "critical": result.critical,
                **(_ours(result, facts) if facts else {}),
            },
        }
    )


def _ours(result: Result, facts: Facts) -> dict[str, Any]:
    past = facts.history
    return _without_empty(
        {
            "raw": result.raw.value,
            "description": facts.description,
            "groups": list(facts.groups),
            "ageSeconds": None if past.age is None else round(past.age, 3),
            "durationSeconds": round(result.duration, 6) if result.when else None,
            "lastChange": _time(past.changes[-1].when) if past.changes else None,
            "breaker": None if facts.breaker is None else _breaker(facts.breaker, past),
            "history": {
                "runs": past.runs,
                "failures": {reason.value: n for reason, n in past.failures.items()},
                "changes": past.changed,
                "flapsLastHour": past.flaps,
                "lastChanges": [
                    {
                        "time": _time(change.when),
                        "from": change.old.value,
                        "to": change.new.value,
                        "reason": change.reason.value,
                    }
                    for change in past.changes[-_CHANGES_SHOWN:]
                ],
                "recentSeconds": [round(run.duration, 6) for run in past.recent[-_RUNS_SHOWN:]],
            },
        }
    )


def _breaker(breaker: BreakerSnapshot, past: History) -> dict[str, Any]:
    return {
        "state": breaker.state.value,
        "retryAfterSeconds": breaker.retry_after and round(breaker.retry_after, 3),
        "consecutiveFailures": breaker.consecutive_failures,
        "opened": breaker.opened_count,
        "rejected": breaker.rejected,
        "transitions": {state.value: n for state, n in past.circuit.items()},
    }


def _measurement(result: Result, name: str, value: Measurement) -> dict[str, Any]:
    return _without_empty(
        {
            "componentId": result.name,
            "observedValue": value,
            "observedUnit": _UNITS.get(name.rpartition("_")[2]),
            "status": _WORDS[result.status],
            "time": _time(result.when),
        }
    )


def _time(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _without_empty(members: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in members.items() if v is not None and v not in ("", [], {})}
