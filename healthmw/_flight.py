"""Single flight: one run of a check under way, and all who wait for it.

A flight belongs to no thread and to no event loop. Whoever finds it may join it; leaving it, or
being cancelled while waiting, changes nothing for the others.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from healthmw._loop_protocol import LoopGoneError
from healthmw._native import Lock, arrival, get_ident

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from healthmw._loop_protocol import Loop
    from healthmw._model import Result

_TICK = 0.005
"""How long, in seconds, a run that is due may take to settle before readers call it overdue."""

_LONGEST = 86400.0
"""What a thread waits in one go, in seconds: it can't wait as long as numbers can say."""


class Flight:
    """One run of a check. `expires` is when it is overdue, by `time.monotonic()`.

    `on_expiry` is called by a reader who finds it overdue; it claims and settles the flight, or
    gives it more time.
    """

    __slots__ = ("_lock", "_waiting", "claimed", "expires", "on_expiry", "result")

    def __init__(self, expires: float, on_expiry: Callable[[Self], None]) -> None:
        self._lock = Lock()
        self._waiting: list[Callable[[], None]] = []
        self.claimed = False
        self.on_expiry = on_expiry
        self.expires = expires
        self.result: Result | None = None
        """The outcome, once there is one; or, of a run that is overdue, that it is."""

    def claim(self) -> bool:
        """Return True to the first who asks, who then sees to the result and calls `settle`."""
        with self._lock:
            first = not self.claimed
            self.claimed = True
        return first

    def settle(self, result: Result) -> None:
        """Wake all who wait."""
        with self._lock:
            self.result = result
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def join(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called, from any thread, once it has settled; return False if it has."""
        with self._lock:
            if self.result is not None:
                return False
            self._waiting.append(wake)
            return True

    def leave(self, wake: Callable[[], None]) -> None:
        """Wait no longer."""
        with self._lock:
            if wake in self._waiting:
                self._waiting.remove(wake)


class _LastOf:
    """Calls `wake` when the last of several flights has settled."""

    __slots__ = ("_left", "_lock", "_wake")

    def __init__(self, flights: Sequence[Flight], wake: Callable[[], None]) -> None:
        self._lock = Lock()
        self._wake = wake
        self._left = len(flights) + 1  # one for ourselves: not before all were asked
        for flight in flights:
            if not flight.join(self):
                self()
        self()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._wake()


def _patience(flights: Sequence[Flight], deadline: float) -> float:
    """Settle the flights that are overdue; return for how many seconds to wait for the others."""
    now = time.monotonic()
    until = deadline
    for flight in flights:
        if not flight.claimed and flight.expires + _TICK <= now:
            flight.on_expiry(flight)
        if not flight.claimed:  # or it was given more time
            until = min(until, flight.expires + _TICK)
    return until - now


async def wait_for(flights: Sequence[Flight], deadline: float, loop: Loop) -> None:
    """Wait until all flights have settled or are overdue, but not beyond `deadline`.

    `loop` is the one that this runs on.
    """
    arrived = loop.promise()

    def arrive() -> None:
        loop.keep(arrived, None)

    def wake() -> None:
        if loop.thread == get_ident():
            arrive()
            return
        try:
            loop.call_soon(arrive)
        except LoopGoneError:
            return  # and with it whoever waited there

    last_of = _LastOf(flights, wake)
    try:
        while not arrived.done() and (seconds := _patience(flights, deadline)) > 0:
            await loop.wait(arrived, seconds)
    finally:
        for flight in flights:
            flight.leave(last_of)


def wait_for_sync(flights: Sequence[Flight], deadline: float) -> None:
    """Do the same in a thread that has no event loop."""
    arrived = arrival()
    last_of = _LastOf(flights, arrived.set)
    try:
        while not arrived.is_set() and (seconds := _patience(flights, deadline)) > 0:
            arrived.wait(min(seconds, _LONGEST))
    finally:
        for flight in flights:
            flight.leave(last_of)
