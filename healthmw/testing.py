"""For the tests of apps that use healthmw, and of probes.

`ManualClock` is a clock set by hand, `ScriptedProbe` a probe that follows a script, and
`check_probe` tests a probe of your own against the contract of probes.

In an async test, say::

    clock = ManualClock()
    database = ScriptedProbe(None, ConnectionError("refused"))
    health = Health(clock=clock)
    health.add("database", database)

    assert (await health.run()).ok
    clock.advance(2)  # the result is older than its `max_age` now
    assert not (await health.run()).ok
    assert database.calls == 2
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio

from healthmw._loop import current_loop
from healthmw._loop_protocol import LoopGoneError
from healthmw._options import WrongTypeError
from healthmw._probe_contract import PROBE_RULES, check_probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw._probe import Outcome

    _Scripted = Outcome | BaseException | type[BaseException]

__all__ = ("PROBE_RULES", "ManualClock", "ScriptedProbe", "check_probe")

check_probe.__module__ = __name__  # what messages and the documentation name is what to import


class ManualClock:
    """A clock that stands still until told to go on: `Health(clock=ManualClock())`.

    It rules what a `Health` takes from its clock: the age of results, the spacing of
    `per_hour` and the waits of breakers.
    Timeouts, deadlines and intervals are spans of real time, whatever the clock says.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self._now

    @property
    def now(self) -> float:
        """The time, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Raises `ValueError` if they are negative: time never goes back."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds={seconds!r} must be a finite number, 0 or more")
        self._now += seconds


class ScriptedProbe:
    """A probe whose calls end as its script says, and hang when told to.

    Each call takes the next outcome; the last one is repeated. What may be returned is returned
    (None, measurements, `Degraded(...)`), exceptions and classes of exceptions are raised. Without
    a script every call is well.

    It is async, or with `is_async=False` a sync probe, to be run in a thread. It may be called and
    told what to do from any thread.
    """

    def __init__(
        self,
        *script: Outcome | BaseException | type[BaseException],
        is_async: bool = True,
    ) -> None:
        self.is_async = is_async
        self._lock = threading.Lock()
        self._script = _read(script)
        self._calls = 0
        self._running = 0
        self._hangs = False
        self._waiting: set[Callable[[], object]] = set()

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return self._calls

    @property
    def running(self) -> int:
        """How many calls are under way."""
        return self._running

    def play(self, *script: Outcome | BaseException | type[BaseException]) -> None:
        """Follow this script from now on, in place of what is left of the old one."""
        read = _read(script)
        with self._lock:
            self._script = read

    def hang(self) -> None:
        """Have every call from now on wait until `release()`."""
        with self._lock:
            self._hangs = True

    def release(self) -> None:
        """Let the calls that hang go on, each with the outcome that is next in the script then."""
        with self._lock:
            self._hangs = False
            waiting, self._waiting = self._waiting, set()
        for wake in waiting:
            with contextlib.suppress(LoopGoneError):  # and the call with its loop
                wake()

    def __call__(self) -> Any:
        """Run the probe once; an async one returns a coroutine."""
        return self._run_async() if self.is_async else self._run()

    async def _run_async(self) -> Outcome:
        loop = current_loop()
        assert loop is not None  # noqa: S101 - for the type checker: a coroutine is run by one
        released = anyio.Event()
        wake = functools.partial(loop.call_soon, released.set)
        try:
            if self._begin(wake):
                await released.wait()
            return self._next()
        finally:
            self._end(wake)

    def _run(self) -> Outcome:
        released = threading.Event()
        wake = released.set
        try:
            if self._begin(wake):
                released.wait()
            return self._next()
        finally:
            self._end(wake)

    def _begin(self, wake: Callable[[], object]) -> bool:
        """Count a call. Return True when it is to wait until `wake` is called."""
        with self._lock:
            self._calls += 1
            self._running += 1
            if self._hangs:
                self._waiting.add(wake)
            return self._hangs

    def _end(self, wake: Callable[[], object]) -> None:
        with self._lock:
            self._running -= 1
            self._waiting.discard(wake)

    def _next(self) -> Outcome:
        with self._lock:
            outcome = self._script[0]
            if len(self._script) > 1:
                self._script.popleft()
        if isinstance(outcome, BaseException):
            raise outcome.with_traceback(None)  # raised again and again, it would grow each time
        if isinstance(outcome, type):
            raise outcome
        return outcome


def _read(script: tuple[_Scripted, ...]) -> deque[_Scripted]:
    """Return `script`, or what stands for none. A list in it would be an outcome, and a pass."""
    for outcome in script:
        if isinstance(outcome, list | tuple):
            raise WrongTypeError(
                "a script is no list: give its outcomes one after the other, "
                "as in ScriptedProbe(None, ConnectionError())"
            )
    return deque(script or (None,))
