"""The app's own calls to a dependency, as evidence that spares it a run of the probe."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw._breaker import CircuitBreaker
    from healthmw._check import Check

_RECENT = 10.0
"""How old, in seconds, the app's own calls may be to stand for a run of a check on request."""


class Witness:
    """Hears, by way of the breaker, how the guarded calls of a check go."""

    def __init__(self, check: Check, breaker: CircuitBreaker, clock: Callable[[], float]) -> None:
        self._breaker = breaker
        self._clock = clock
        # How old what is heard may be, in seconds.
        on_request = check.interval is None
        self._lasts = max(_RECENT, check.max_age) if on_request else check.stale_after
        self._heard = self._listen()
        self.after_fork()
        with contextlib.suppress(Exception):  # a clock may tell the time on an event loop alone
            self._heard_at = clock()

    def after_fork(self) -> None:
        """Let what was heard be too old. No breaker is asked: its lock may not be renewed yet."""
        self._heard_at = -math.inf

    def hears_well(self) -> bool:
        """Tell whether, since the last look, guarded calls have gone well and none has failed."""
        now = self._clock()
        before, self._heard = self._heard, self._listen()
        looked, self._heard_at = self._heard_at, now
        if now - looked > self._lasts:
            return False  # nobody knows how long ago they went well
        return self._heard[0] > before[0] and self._heard[1] == before[1]

    def forget_successes(self) -> None:
        """Let what has gone well until now be no evidence: a probe's own calls are none."""
        self._heard = self._listen()[0], self._heard[1]

    def _listen(self) -> tuple[int, int]:
        """Return the successes of the app's own calls, and all failures, heard of so far."""
        return self._breaker._evidence()  # noqa: SLF001 - the same house
