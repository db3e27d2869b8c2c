"""What a check remembers of its past: the last runs and changes, and counts. In memory only."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from healthmw._frozen import FrozenDict
from healthmw._model import Reason, Status
from healthmw._native import Lock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from healthmw._breaker_state import BreakerState
    from healthmw._model import Result

_RUNS_KEPT = 60
_CHANGES_KEPT = 20
_FLAPS_WITHIN = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a check's verdict."""

    when: datetime
    """Aware, UTC."""
    old: Status
    new: Status
    reason: Reason


@dataclass(frozen=True, slots=True)
class PastRun:
    """One run: how long it took, in seconds, and what it said by itself."""

    duration: float
    raw: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The past of one check in this process, as of one instant. Sequences have the newest last."""

    age: float | None = None
    """Seconds since the last result; None if there was none."""
    status: Status = Status.UNKNOWN
    """The verdict: after the last result, or since the circuit opened."""
    unchanged: float | None = None
    """Seconds since it became `status`; None if nothing is known yet."""
    runs: int = 0
    """How often the probe ran, in all."""
    failures: Mapping[Reason, int] = field(default_factory=FrozenDict)
    """Results that were no pass by themselves, in all, by reason."""
    recent: tuple[PastRun, ...] = ()
    """The last runs, up to 60."""
    changed: int = 0
    """How often the verdict changed, in all; the first result is no change."""
    changes: tuple[Change, ...] = ()
    """The last changes of the verdict, up to 20."""
    flaps: int = 0
    """Among those, how often in the last hour it went from passing to not passing or back."""
    circuit: Mapping[BreakerState, int] = field(default_factory=FrozenDict)
    """How often the breaker entered each state, in all."""


class Recorder:
    """Writes the history of one check. Guarded by its lock; what it keeps is bounded."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._ended: float | None = None
        self._status = Status.UNKNOWN
        self._turned: float | None = None
        self._runs = 0
        self._failures: Counter[Reason] = Counter()
        self._recent: deque[PastRun] = deque(maxlen=_RUNS_KEPT)
        self._changed = 0
        self._changes: deque[tuple[float, Change]] = deque(maxlen=_CHANGES_KEPT)
        self._circuit: Counter[BreakerState] = Counter()

    def result(self, new: Result, now: float) -> None:
        """Note a result; `now` is in monotonic seconds."""
        with self._lock:
            self._ended = now
            if new.duration:  # without one nothing ran: the app's own calls spoke, or it is stuck
                self._runs += 1
                self._recent.append(PastRun(new.duration, new.raw))
            if new.raw > Status.DEGRADED:
                self._failures[new.reason] += 1

    def change(self, old: Result, new: Result, now: float) -> None:
        """Note a change of the verdict, the first of which is none from anything."""
        with self._lock:
            self._status, self._turned = new.status, now
            if old.reason is not Reason.NEVER_RUN and new.when:
                self._changed += 1
                change = Change(when=new.when, old=old.status, new=new.status, reason=new.reason)
                self._changes.append((now, change))

    def circuit(self, state: BreakerState) -> None:
        """Note that the breaker entered `state`."""
        with self._lock:
            self._circuit[state] += 1

    def snapshot(self, now: float) -> History:
        """Return what is known at `now`, in monotonic seconds."""
        with self._lock:
            flaps = sum(
                (change.old <= Status.DEGRADED) != (change.new <= Status.DEGRADED)
                for at, change in self._changes
                if now - at <= _FLAPS_WITHIN
            )
            return History(
                age=None if self._ended is None else max(now - self._ended, 0.0),
                status=self._status,
                unchanged=None if self._turned is None else max(now - self._turned, 0.0),
                runs=self._runs,
                failures=FrozenDict(self._failures),
                recent=tuple(self._recent),
                changed=self._changed,
                changes=tuple(change for _, change in self._changes),
                flaps=flaps,
                circuit=FrozenDict(self._circuit),
            )
