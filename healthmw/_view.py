"""What a reader may see: a report cut down to its level before any format is given it.

A renderer can't show what it was not given. So who may see what is decided here, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from healthmw._frozen import FrozenDict
from healthmw._model import Measurement, Report, Result
from healthmw._options import WrongTypeError, text

if TYPE_CHECKING:
    from datetime import datetime

    from healthmw._breaker_state import BreakerSnapshot
    from healthmw._history import History

CHECKS_SHOWN = 1000
_MEASUREMENTS_SHOWN = 16
_DETAIL_SHOWN = 1000
_TEXT_SHOWN = 200


class Level(StrEnum):
    """How much a caller sees."""

    SUMMARY = "summary"
    """The verdict, and nothing about any check."""
    NAMES = "names"
    """The checks' names, statuses and reason codes, too."""
    FULL = "full"
    """Everything: messages, measurements, times, breakers, history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the app says of itself, in the words of the health+json draft."""

    service: str | None = None
    version: str | None = None
    description: str = ""
    links: Mapping[str, str] = field(default_factory=FrozenDict)


def about(
    *, service: str | None, version: str | None, description: str, links: Mapping[str, str]
) -> About:
    """Return what the app says of itself, checked. Raises `ValueError` with the option's name."""
    texts: dict[str, object] = {
        "service": "" if service is None else service,
        "version": "" if version is None else version,
        "description": description,
    }
    for option, value in texts.items():
        text(option, value)
    given: object = links
    if not isinstance(given, Mapping) or not all(
        isinstance(part, str) for link in given.items() for part in link
    ):
        raise WrongTypeError("links must map relations to URLs, both str: {'about': 'https://...'}")
    return About(
        service=service,
        version=version,
        description=description,
        links=FrozenDict(links),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to know of one check beside its result. For `Level.FULL` only."""

    history: History
    breaker: BreakerSnapshot | None = None
    groups: tuple[str, ...] = ()
    description: str = ""
    component: str = "component"
    """Its kind, as the health+json draft has it: component, datastore or system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A report as one reader may see it."""

    report: Report
    level: Level
    at: datetime
    """When it was made (aware, UTC)."""
    about: About = field(default_factory=About)
    facts: Mapping[str, Facts] = field(default_factory=FrozenDict)
    """By the name of the check; empty below `Level.FULL`."""
    events_dropped: int | None = None
    """How many events no listener was told; None below `Level.FULL`."""
    checks: int = 0
    """How many checks the report has; 0 where that is not for the reader."""
    instance: str = ""
    """Which process says so; empty below `Level.FULL`."""
    needs: tuple[str, ...] = ()
    """What the release that runs here needs, sorted; empty below `Level.FULL`."""

    @property
    def omitted(self) -> int:
        """How many checks are left out because there are too many."""
        return max(self.checks - len(self.report.results), 0)


def reduced(report: Report, level: Level) -> Report:
    """Return `report` without what is not for `level`, and of bounded size."""
    if level is Level.SUMMARY:
        return replace(report, results=FrozenDict(), reason=None)
    results = list(report.results.values())
    if len(results) > CHECKS_SHOWN:
        results = worst_first(results)[:CHECKS_SHOWN]
    cut = _cleaned if level is Level.FULL else _named
    return replace(report, results=FrozenDict({r.name: cut(r) for r in results}))


def worst_first(results: list[Result]) -> list[Result]:
    """Return `results` by what they count, then by what they are; else in their order."""
    return sorted(results, key=lambda r: (-r.counted.severity, -r.status.severity))


def _named(result: Result) -> Result:
    """Keep what anyone may know. What is kept is listed: a new field is private until it is."""
    return Result(
        name=result.name,
        status=result.status,
        reason=result.reason,
        raw=result.status,
        critical=result.critical,
        retry_after=result.retry_after,
    )


def _cleaned(result: Result) -> Result:
    """Make of what a probe said something that fits any format."""
    kept = list(result.measurements.items())[:_MEASUREMENTS_SHOWN]
    return replace(
        result,
        detail=printable(result.detail, _DETAIL_SHOWN),
        measurements={printable(name, _TEXT_SHOWN): _shown(value) for name, value in kept},
    )


def _shown(value: Measurement) -> Measurement:
    if isinstance(value, str):
        return printable(value, _TEXT_SHOWN)
    return value if math.isfinite(value) else str(value)  # JSON knows no NaN


def printable(text: str, limit: int) -> str:
    """Return `text` on one line, shortened, without what a terminal may take for a command."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
