"""What runs without being asked: background checks, and the trials of open breakers."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import TYPE_CHECKING

import anyio

from healthmw._breaker_state import BreakerState
from healthmw._closing import close_probes
from healthmw._flight import wait_for
from healthmw._loop import current_loop
from healthmw._loop_protocol import LoopGoneError
from healthmw._model import Status
from healthmw._native import Lock, get_ident
from healthmw._portal import PORTAL, load_anyio
from healthmw._runner import Run
from healthmw._scrub import tell_uncaught

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from healthmw._breaker import CircuitBreaker
    from healthmw._loop_protocol import Loop
    from healthmw._model import Result
    from healthmw._runner import Runner

_JITTER = 0.1
"""Intervals vary by this fraction, so that the processes of a fleet don't probe in step."""

_LEAST_PAUSE = 0.05
"""The shortest pause between two trials, in seconds."""

_INDECISIVE_PAUSE = 1.0
"""The pause after a trial that was none: the probe is stuck, or raised what the breaker ignores."""

_TO_BE_TRIED = frozenset({BreakerState.OPEN, BreakerState.HALF_OPEN})


@contextlib.contextmanager
def _outlived() -> Iterator[None]:
    """Tell what a round breaks down with (a log of the user's, for one): the next one comes."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - nobody waits for it to be told
        tell_uncaught(exc)


class Background:
    """The background work of one `Health`. Its state is guarded by its lock."""

    def __init__(self, *, random: Callable[[], float]) -> None:
        self._random = random
        self._lock = Lock()
        self._home: Loop | None = None
        self._borrowed = False  # whether home is the portal's
        self._era = 0  # how often it was stopped
        self._refreshed: dict[Runner, Callable[[], None]] = {}
        self._recovering: dict[Runner, Callable[[], None]] = {}

    def loop(self) -> Loop:
        """Return a loop for work begun by a thread that has none.

        That is the loop where `start()` was called, while it lives: the app's own clients belong to
        it. Else it is the portal's; and so it is for a caller who blocks that very loop.
        """
        home = self._home
        if home is not None and home.thread != get_ident() and home.alive:
            return home
        return PORTAL.loop()

    @property
    def running(self) -> bool:
        """Whether `start()` was called, and `stop()` not since."""
        return self._home is not None

    @property
    def home(self) -> Loop | None:
        """The app's loop, where `start()` was called on one."""
        return None if self._borrowed else self._home

    def start(self, runners: Sequence[Runner], *, aside: bool) -> None:
        """Refresh from now on those checks of `runners` that have an interval.

        They run on the loop of this thread, unless the caller is `aside`: then that is not the
        app's. What began on the portal's loop, before there was one of the app's, moves over.
        """
        loop = None if aside else current_loop()
        with self._lock:
            settled = self._home is not None and self._home.alive
            if not settled or (self._borrowed and loop is not None):
                for cancel in self._refreshed.values():
                    with contextlib.suppress(LoopGoneError):  # they ended with their loop
                        cancel()
                self._refreshed.clear()
                self._home, self._borrowed = loop or PORTAL.loop(), loop is None
                if loop is not None:
                    load_anyio()
            home = self._home
            assert home is not None  # noqa: S101 - for the type checker
            for runner in runners:
                interval = runner.check.interval
                if interval is not None and runner not in self._refreshed:
                    main = functools.partial(self._refresh, runner, interval, home)
                    self._refreshed[runner] = home.spawn(main)

    def recover(self, runner: Runner) -> None:
        """See to it that the trial of `runner`'s breaker is made when it is due."""
        with self._lock:
            if runner in self._recovering:
                return
            home = self._home
            if home is None or not home.alive:
                home = current_loop() or PORTAL.loop()
            main = functools.partial(self._try_again, runner, home, self._era)
            self._recovering[runner] = home.spawn(main)

    async def stop(self, runners: Sequence[Runner]) -> None:
        """End it all, and close the probes."""
        with self._lock:
            cancels = [*self._refreshed.values(), *self._recovering.values()]
            self._refreshed.clear()
            self._recovering.clear()
            self._home = None
            self._era += 1
        for cancel in [*cancels, *(runner.cancel for runner in runners)]:
            try:
                cancel()
            except LoopGoneError:
                continue  # what ran there has ended with it
        await close_probes(runners)

    async def _refresh(self, runner: Runner, interval: float, loop: Loop) -> None:
        while True:
            with _outlived():
                while rest := runner.rest:  # noqa: ASYNC110 - a clock is no event
                    await anyio.sleep(rest)
                await self._run_once(runner, loop)
            pause = interval * (1 + _JITTER * (2 * self._random() - 1))
            await anyio.sleep(min(pause, runner.check.stale_after - runner.check.timeout))

    async def _try_again(self, runner: Runner, loop: Loop, era: int) -> None:
        breaker = runner.check.breaker
        assert breaker is not None  # noqa: S101 - for the type checker: it is what calls us
        pause: float | None = 0.0
        try:
            while pause is not None:
                await anyio.sleep(pause)
                pause = _INDECISIVE_PAUSE
                with _outlived():
                    pause = await self._try_if_due(runner, loop, breaker)
        finally:
            with self._lock:
                if era == self._era:
                    del self._recovering[runner]
        if breaker.state in _TO_BE_TRIED:  # opened again before we had said that we leave
            self.recover(runner)

    async def _try_if_due(
        self, runner: Runner, loop: Loop, breaker: CircuitBreaker
    ) -> float | None:
        """Make the trial if it is due. Return for how long to pause, or None where none will be."""
        if breaker.state not in _TO_BE_TRIED:
            return None
        pause = breaker.retry_after
        if not pause and not runner.rest:
            result = await self._run_once(runner, loop)
            if breaker.state not in _TO_BE_TRIED:
                return None
            decisive = result.raw <= Status.DEGRADED
            pause = breaker.retry_after or (0.0 if decisive else _INDECISIVE_PAUSE)
        return max(pause or 0.0, runner.rest, _LEAST_PAUSE)

    @staticmethod
    async def _run_once(runner: Runner, loop: Loop) -> Result:
        run = runner.begin(lambda: loop)
        if not isinstance(run, Run):
            return run
        await wait_for([run], math.inf, loop)
        assert run.result is not None  # noqa: S101 - for the type checker: it has been waited for
        return run.result
