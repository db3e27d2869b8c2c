"""The words of a verdict: status, reason, result, report, and how results aggregate."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from healthmw._frozen import FrozenDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

Measurement = int | float | str
"""One observed value. Its name carries its unit as a suffix: `latency_seconds`, `used_bytes`."""

NOTHING_MEASURED: Mapping[str, Measurement] = FrozenDict()


class Status(StrEnum):
    """How well something is. Ordered by severity: OKAY < DEGRADED < UNKNOWN < FAILED."""

    OKAY = "okay"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"
    FAILED = "failed"

    @property
    def severity(self) -> int:
        """0 for OKAY, up to 3 for FAILED."""
        return _SEVERITY[self]

    # StrEnum would compare the words, by the alphabet: "degraded" < "okay".
    def __lt__(self, other: str) -> bool:
        return _SEVERITY[self] < _SEVERITY[other]

    def __le__(self, other: str) -> bool:
        return _SEVERITY[self] <= _SEVERITY[other]

    def __gt__(self, other: str) -> bool:
        return _SEVERITY[self] > _SEVERITY[other]

    def __ge__(self, other: str) -> bool:
        return _SEVERITY[self] >= _SEVERITY[other]


class _Severities(dict[str, int]):
    """Severities by status, or by its plain word."""

    def __missing__(self, word: str) -> int:
        return self[Status(word)]  # which says that this is none


_SEVERITY = _Severities({status: severity for severity, status in enumerate(Status)})


class Reason(StrEnum):
    """Why a result or a report is what it is: a code that may be shown to anyone."""

    OKAY = "okay"
    """The probe returned."""
    DEGRADED = "degraded"
    """The probe returned `Degraded(...)`."""
    FAILED = "failed"
    """The probe raised."""
    TIMEOUT = "timeout"
    """The probe was not back within the check's timeout or its own, or not before the deadline."""
    STUCK = "stuck"
    """An earlier run was abandoned and still has not come back, so no new one was begun."""
    CIRCUIT_OPEN = "circuit_open"
    """The breaker is open, so the probe was not run."""
    RECOVERING = "recovering"
    """The probe returned, but not yet often enough in a row (`success_threshold`)."""
    NEVER_RUN = "never_run"
    """There is no result yet."""
    STALE = "stale"
    """The last result is older than `stale_after`, or the run for a newer one was cancelled."""
    DRAINING = "draining"
    """The process is about to stop and wants no new traffic."""
    NO_CHECKS = "no_checks"
    """No check is registered, so nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One outcome of one check."""

    name: str
    status: Status
    """The verdict, after `failure_threshold` and `success_threshold`."""
    reason: Reason
    """Why the last run ended as it did."""
    raw: Status = Status.UNKNOWN
    """What the last run said by itself, before the thresholds."""
    critical: bool = True
    detail: str = field(default="", repr=False)
    """For the log and for authorised eyes: scrubbed of credentials, yet not for the public."""
    duration: float = 0.0
    """How long the run took, in seconds."""
    when: datetime | None = None
    """When the run ended (aware, UTC); None if there was none."""
    measurements: Mapping[str, Measurement] = field(default_factory=lambda: NOTHING_MEASURED)
    retry_after: float | None = None
    """Seconds until the breaker's next trial, as of this result; None unless `circuit_open`."""

    @property
    def ok(self) -> bool:
        """True for OKAY and DEGRADED."""
        return self.status <= Status.DEGRADED

    @property
    def counted(self) -> Status:
        """The status as it counts in a report: a non-critical check is at most DEGRADED."""
        return self.status if self.critical else min(self.status, Status.DEGRADED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results of one group (or of one check) and their aggregate.

    It can be pickled, and `dataclasses.asdict` makes plain data of it, for JSON with `default=str`.
    """

    group: str
    """The group's name; for the report of one check, the check's name."""
    status: Status
    code: int
    """The HTTP status code with which the group answers this status."""
    results: Mapping[str, Result]
    reason: Reason | None = None
    """Why, when the reason lies with no single check: `draining`, `no_checks`."""
    release: str | None = None

    @property
    def ok(self) -> bool:
        """True when the group passes: its code says so, and so does the body."""
        return self.code < 300

    @property
    def at_fault(self) -> tuple[Result, ...]:
        """The results that make the status what it is."""
        alone = self.group in self.results  # one check counts at its own severity
        return tuple(
            result
            for result in self.results.values()
            if (result.status if alone else result.counted) is self.status
        )


def worst(statuses: Iterable[Status], *, empty: Status = Status.UNKNOWN) -> Status:
    """Return the most severe of `statuses`, or `empty` where there is none."""
    return max(statuses, key=_SEVERITY.__getitem__, default=empty)
