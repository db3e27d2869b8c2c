"""Plain text: four bytes for a pass; for a failure, what is at fault and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw._model import Reason, Status

if TYPE_CHECKING:
    from healthmw._model import Report, Result

__all__ = ("CONTENT_TYPE", "render", "render_verbose")

CONTENT_TYPE = "text/plain; charset=utf-8"

_NAMED = 20
_MARKS = {Status.OKAY: "[+]", Status.DEGRADED: "[~]", Status.UNKNOWN: "[?]", Status.FAILED: "[-]"}


def render(report: Report) -> str:
    """Return `OKAY`, or `FAILED:` and what is at fault, as far as the report tells."""
    if report.ok:
        return "OKAY"
    fault = _fault(report)
    return f"FAILED: {fault}" if fault else "FAILED"


def render_verbose(report: Report, *, details: bool = False) -> str:
    """Return the same and then one line a check, in the manner of kube-apiserver's readyz.

    With `details`, what a probe said is on it, too: that is not for the public.
    """
    lines = [render(report), *(_line(result, details) for result in report.results.values())]
    return "\n".join(lines) + "\n"


def _fault(report: Report) -> str:
    if report.reason is Reason.NO_CHECKS:
        return "no check is registered"
    if report.reason is not None:
        return report.reason.value
    guilty = [f"{result.name} ({result.reason})" for result in report.at_fault]
    more = f", and {len(guilty) - _NAMED} more" if len(guilty) > _NAMED else ""
    return ", ".join(guilty[:_NAMED]) + more


def _line(result: Result, details: bool) -> str:
    notes = [f"{result.duration * 1000:.0f} ms"] if result.when is not None else []
    if result.reason.value != result.status.value:
        notes.insert(0, result.reason.value)
    if result.retry_after is not None:
        notes.append(f"next trial in {result.retry_after:.0f} s")
    if not result.critical:
        notes.append("not critical")
    line = f"{_MARKS[result.status]} {result.name} {result.status}"
    if notes:
        line += f" ({', '.join(notes)})"
    return f"{line}: {result.detail}" if details and result.detail else line
