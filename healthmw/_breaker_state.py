"""The words of a circuit breaker: its states, the outcomes of calls, events, snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol


class BreakerState(StrEnum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """All is well: calls pass, and their outcomes are counted."""
    OPEN = "open"
    """Calls are refused until the wait is over; then a trial is due."""
    HALF_OPEN = "half_open"
    """Trials are under way; their outcomes alone decide between closed and open."""
    FORCED_OPEN = "forced_open"
    """Every call is refused, trials too, until `reset`."""
    METRICS_ONLY = "metrics_only"
    """Calls pass and are counted, and nothing opens it."""
    DISABLED = "disabled"
    """Calls pass, and nothing is counted."""


class Outcome(StrEnum):
    """How a call ended, as the breaker sees it."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"
    """It raised what says nothing about the dependency. Nothing is recorded."""
    CANCELLED = "cancelled"
    """The caller gave up before there was a result. Nothing is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerEvent:
    """What a breaker tells its listeners."""

    kind: Literal["state_changed", "rejected"]
    old: BreakerState
    new: BreakerState
    """The same as `old` where a call was rejected."""
    at: float
    """When, by the breaker's clock: monotonic seconds."""
    retry_after: float | None = None
    """Seconds until a trial is due; None where none will be."""


class Watcher(Protocol):
    """What a breaker tells its checks. It holds them weakly: it may outlive them."""

    def on_transition(self) -> None:
        """Hear of a change of state in its very moment, under the breaker's lock: take none."""

    def on_event(self, event: BreakerEvent) -> None:
        """Hear of it once more, in order and without a lock, as listeners do."""

    def on_trial_due(self) -> None:
        """Hear that a call was refused which may not make the trial that is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSnapshot:
    """A breaker at one instant.

    `calls`, `failures`, `successes` and `slow` are what it goes by: its window, or without one all
    calls since it closed; in half-open the trials; while open what opened it.
    """

    state: BreakerState
    calls: int
    failures: int
    successes: int
    slow: int
    """Calls that took `slow_call_duration` or longer, be they successes or failures."""
    failure_rate: float | None
    """`failures / calls`; None where there was no call."""
    slow_call_rate: float | None
    """`slow / calls`; None where there was no call."""
    consecutive_failures: int
    """Failures since the last success, trials included."""
    retry_after: float | None
    """As `CircuitBreaker.retry_after`."""
    rejected: int
    """Calls refused, in all."""
    opened_count: int
    """How often it opened, in all, failed trials included."""
    total_successes: int
    """Successes recorded, in all. It only goes up: two readings tell what came between them."""
    total_failures: int
    """Failures recorded, in all."""
