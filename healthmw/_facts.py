"""Gathers what a reader may see from a `Health`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from healthmw._frozen import FrozenDict
from healthmw._groups import RELEASE_ONLY
from healthmw._listeners import instance_id
from healthmw._view import Facts, Level, View, printable, reduced

if TYPE_CHECKING:
    from healthmw._health import Health
    from healthmw._model import Report
    from healthmw._probe import Probe

_NEEDS_SHOWN = 200
_NEED_SHOWN = 200
_INSTANCE_SHOWN = 200
_COMPONENTS = ("component", "datastore", "system")
_DESCRIPTION_SHOWN = 500


def view(health: Health, report: Report, level: Level) -> View:
    """Return `report` as a reader of `level` may see it."""
    shown = reduced(report, level)
    facts = {}
    if level is Level.FULL:
        facts = {name: _facts(health, name) for name in shown.results}
    return View(
        report=shown,
        level=level,
        at=datetime.now(UTC),
        about=health.about,
        facts=FrozenDict(facts),
        events_dropped=health.events_dropped if level is Level.FULL else None,
        checks=0 if level is Level.SUMMARY else len(report.results),
        instance=printable(instance_id(), _INSTANCE_SHOWN) if level is Level.FULL else "",
        needs=needs(health) if level is Level.FULL else (),
    )


def needs(health: Health) -> tuple[str, ...]:
    """Return what the code that runs here needs: checks, and what their probes name (`needs`)."""
    found = set()
    for name, check in health.checks.items():
        found.add(name)
        try:
            found.update(f"{name}: {need}" for need in getattr(check.probe, "needs", ()))
        except Exception as exc:  # noqa: BLE001 - a probe of the user's own may raise anything
            found.add(f"{name}: {type(exc).__name__}")
    return tuple(printable(need, _NEED_SHOWN) for need in sorted(found)[:_NEEDS_SHOWN])


def _facts(health: Health, name: str) -> Facts:
    check = health.check(name)
    return Facts(
        history=health.history(name),
        breaker=None if check.breaker is None else check.breaker.snapshot(),
        groups=tuple(sorted(check.groups - RELEASE_ONLY | ({"release"} & check.groups))),
        description=printable(check.description, _DESCRIPTION_SHOWN),
        component=_component(check.probe),
    )


def _component(probe: Probe) -> str:
    try:
        said = getattr(probe, "component_type", None)
        return next((known for known in _COMPONENTS if known == said), "component")
    except Exception:  # noqa: BLE001 - a probe of the user's own may raise anything
        return "component"
