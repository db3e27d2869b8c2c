"""What monitors are told: families of metrics, for the endpoint's own formats and for registries.

What has no number below `Level.FULL` has no family there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from healthmw._breaker_state import BreakerState
from healthmw._model import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from healthmw._view import View

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric and its samples. A counter's name is given without `_total`."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add a sample."""
        # A truth becomes a number here: an exporter of OpenTelemetry's would write `true`.
        self.samples.append((tuple(labels.items()), +value))


def families(view: View) -> Iterator[Family]:
    """Yield every family that `view` has samples for, in a fixed order."""
    return (family for family in all_families(view) if family.samples)


def all_families(view: View) -> Iterator[Family]:
    """Yield the same, and also those that have no sample yet."""
    yield from _report(view)
    yield from _checks(view)
    yield from _past(view)
    yield from _breakers(view)
    family = Family(
        name="healthmw_events_dropped",
        kind="counter",
        help="Changes that a listener was not told in this process because it was too slow.",
    )
    if view.events_dropped is not None:
        family.add(view.events_dropped)
    yield family


def _report(view: View) -> Iterator[Family]:
    report = view.report
    family = Family(
        name="healthmw_group_status",
        kind="gauge",
        help="Verdict of a group of checks: 1 for the status it has, 0 for the others.",
    )
    for status in Status:
        family.add(status is report.status, group=report.group, status=status)
    yield family
    family = Family(
        name="healthmw_group_passing",
        kind="gauge",
        help="Whether a group of checks passes, so that its path answers 2xx.",
    )
    family.add(report.ok, group=report.group)
    yield family
    family = Family(
        name="healthmw_release_info", kind="gauge", help="What release is running; always 1."
    )
    if report.release is not None:
        family.add(1, release=report.release)
    yield family


def _checks(view: View) -> Iterator[Family]:
    results = view.report.results.values()
    family = Family(
        name="healthmw_check_status",
        kind="gauge",
        help="Verdict of a check: 1 for the status it has, 0 for the others.",
    )
    for result in results:
        for status in Status:
            family.add(status is result.status, check=result.name, status=status)
    yield family
    family = Family(
        name="healthmw_check_critical",
        kind="gauge",
        help="Whether a failure of this check fails the app (1), or only degrades it (0).",
    )
    for result in results:
        family.add(result.critical, check=result.name)
    yield family


def _past(view: View) -> Iterator[Family]:
    duration = Family(
        name="healthmw_check_duration_seconds",
        kind="gauge",
        help="How long the last run of the check took.",
    )
    age = Family(
        name="healthmw_check_age_seconds",
        kind="gauge",
        help="How long ago the last result of the check came.",
    )
    runs = Family(
        name="healthmw_check_runs", kind="counter", help="Runs of the check in this process."
    )
    failures = Family(
        name="healthmw_check_failures",
        kind="counter",
        help="Results of the check in this process that were no pass, by reason.",
    )
    changes = Family(
        name="healthmw_check_changes",
        kind="counter",
        help="Changes of the verdict of the check in this process.",
    )
    for name, facts in view.facts.items():
        past = facts.history
        if past.age is not None:
            age.add(past.age, check=name)
            duration.add(view.report.results[name].duration, check=name)
        runs.add(past.runs, check=name)
        changes.add(past.changed, check=name)
        for reason in sorted(past.failures):
            failures.add(past.failures[reason], check=name, reason=reason)
    yield from (duration, age, runs, failures, changes)


def _breakers(view: View) -> Iterator[Family]:
    state = Family(
        name="healthmw_breaker_state",
        kind="gauge",
        help="State of the circuit breaker: 1 for the state it is in, 0 for the others.",
    )
    transitions = Family(
        name="healthmw_breaker_transitions",
        kind="counter",
        help="How often the circuit breaker entered each state in this process.",
    )
    rejected = Family(
        name="healthmw_breaker_rejected",
        kind="counter",
        help="Calls that the circuit breaker refused in this process.",
    )
    for name, facts in view.facts.items():
        if facts.breaker is None:
            continue
        for one in BreakerState:
            state.add(one is facts.breaker.state, check=name, state=one)
            transitions.add(facts.history.circuit.get(one, 0), check=name, state=one)
        rejected.add(facts.breaker.rejected, check=name)
    yield from (state, transitions, rejected)
