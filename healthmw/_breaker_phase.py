"""One stretch of a breaker's time in one state, and the count that needs no lock."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from healthmw._breaker_state import BreakerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw._window import Window

_ADMITTING = frozenset({BreakerState.CLOSED, BreakerState.METRICS_ONLY, BreakerState.DISABLED})


class Tally:
    """A count that goes up without a lock: `next` on a counter is one step of the interpreter.

    It is on the path of every good call, where a lock would cost more than all the rest.
    """

    __slots__ = ("_reads", "add")

    def __init__(self) -> None:
        self.add: Callable[[], int] = itertools.count().__next__
        self._reads = 0

    def read(self) -> int:
        """Return the count. Reading moves the counter too, so this does need the breaker's lock."""
        value = self.add() - self._reads
        self._reads += 1
        return value


class Phase:
    """One stretch of time in one state, with what was counted in it.

    Each transition makes a new one, so it is the generation as well: a permit points to the phase
    that gave it, and what comes back late finds another in charge and changes nothing. What the
    constructor takes never changes, `streak` aside, and may be read without the breaker's lock.
    """

    __slots__ = (
        "admits",
        "due",
        "failures",
        "hit",
        "opened_by",
        "quick",
        "slow",
        "state",
        "streak",
        "successes",
        "told",
        "trials",
        "wait",
        "window",
    )

    def __init__(
        self,
        state: BreakerState,
        *,
        quick: bool = False,
        window: Window | None = None,
        streak: int = 0,
        wait: float = 0.0,
        due: float = math.inf,
        opened_by: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        self.state: BreakerState = state
        self.admits: bool = state in _ADMITTING
        # Whether a success while `streak` is 0 is told by `hit()`, and there is nothing else to it.
        self.quick: bool = quick and self.admits
        self.window: Window | None = window
        self.streak: int = streak
        # How long it stays open but for jitter; half-open keeps it for the backoff.
        self.wait: float = wait
        self.due: float = due
        # While open: the calls, failures and slow calls that opened it.
        self.opened_by: tuple[int, int, int] = opened_by
        self.failures: int = 0
        self.slow: int = 0
        self.successes: Tally = Tally()
        self.hit: Callable[[], object] = (
            self.successes.add if state is not BreakerState.DISABLED else _count_nothing
        )
        # Whether it was logged what the call raised that opened it.
        self.told: bool = False
        # The permits of half-open that are out, the oldest first, and since when.
        self.trials: dict[Any, float] = {}

    def count(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in the outcome of one call. Under the breaker's lock."""
        if self.state is BreakerState.DISABLED:
            return
        if failed:
            self.failures += 1
            self.streak += 1
        else:
            self.hit()
            self.streak = 0
        self.slow += slow
        if self.window is not None:
            self.window.add(now, failed=failed, slow=slow)

    def counts(self, now: float) -> tuple[int, int, int]:
        """Return calls, failures and slow calls that are decided by. Under the breaker's lock."""
        if self.state is BreakerState.OPEN:
            return self.opened_by
        if self.window is not None:
            self.window.expire(now)
            return self.window.calls, self.window.failures, self.window.slow
        return self.successes.read() + self.failures, self.failures, self.slow


def _count_nothing() -> None:
    """Stand in for the count of a phase that has none."""
