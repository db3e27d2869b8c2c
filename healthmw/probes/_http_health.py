"""Reads what another service's health endpoint says of itself and of its parts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from healthmw._probe import Degraded
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from healthmw._model import Measurement

ACCEPT = "application/health+json, application/json;q=0.9"

# The words of draft-inadarei-api-health-check-06, and the other spellings that it allows.
_WORDS = {
    "pass": "pass",
    "ok": "pass",
    "up": "pass",
    "warn": "warn",
    "fail": "fail",
    "error": "fail",
    "down": "fail",
}
_SEVERITY = {"pass": 0, "warn": 1, "fail": 2}
_PARTS_NAMED = 10
_NAME_KEPT = 64


def judge_health(
    body: bytes, http_status: int, found: Mapping[str, Measurement]
) -> tuple[Degraded | None, Mapping[str, Measurement]]:
    """Judge a health+json document; return what is degraded, and `found` with `<part>_status`.

    Only names and statuses are taken over: a remote message may hold anything. Raises
    `ProbeFailedError` where it says `fail`, or contradicts its HTTP status, or is no such document.
    """
    document = _document(body)
    status = _word(document)
    if status is None:
        raise ProbeFailedError(f"status {http_status}, and the body is not health+json")
    parts = _parts(document)
    measured = {**found, **{f"{name}_status": word for name, word in parts.items()}}
    bad = [f"{name} ({word})" for name, word in parts.items() if word != "pass"]
    rest = [f"and {len(bad) - _PARTS_NAMED} more"] if len(bad) > _PARTS_NAMED else []
    words = ": ".join(filter(None, [f"it says {status}", ", ".join(bad[:_PARTS_NAMED] + rest)]))
    if status == "fail":
        raise ProbeFailedError(words)
    if http_status >= 400:
        raise ProbeFailedError(f"it says {status}, with status {http_status}")
    return (Degraded(words, measured) if status == "warn" else None), measured


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _word(entry: object) -> str | None:
    status = entry.get("status") if isinstance(entry, dict) else None
    return _WORDS.get(status.lower()) if isinstance(status, str) else None


def _parts(document: dict[str, Any]) -> dict[str, str]:
    """Return the worst status of each component, in the order of the document."""
    checks = document.get("checks")
    found: dict[str, str] = {}
    for key, entries in checks.items() if isinstance(checks, dict) else ():
        # "component:measurement", or one of both
        name = str(key).partition(":")[0][:_NAME_KEPT] or str(key)[:_NAME_KEPT]
        for entry in entries if isinstance(entries, list) else [entries]:
            word = _word(entry)
            if word is not None and _SEVERITY[word] >= _SEVERITY[found.get(name, "pass")]:
                found[name] = word
    return found
