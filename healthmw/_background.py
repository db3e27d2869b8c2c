"""What runs without being asked: background checks, and the trials of open breakers."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import TYPE_CHECKING, Any

import anyio

from healthmw._breaker_state import BreakerState
from healthmw._closing import close_probes
from healthmw._flight import wait_for
from healthmw._loop import current_loop
from healthmw._loop_protocol import LoopGoneError
from healthmw._model import Status
from healthmw._native import RLock, get_ident
from healthmw._portal import PORTAL, load_anyio
from healthmw._runner import Run
from healthmw._scrub import outlived

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from healthmw._check import Check
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


class _Work:
    """One task in the background."""

    __slots__ = ("cancel", "loop")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.cancel: Callable[[], None] = lambda: None  # until it is spawned


class Background:
    """The background work of one `Health`. Its state is guarded by its lock.

    That may be taken again by who has it: a task that was dropped with its loop ends wherever the
    garbage is collected.
    """

    def __init__(self, *, random: Callable[[], float]) -> None:
        self._random = random
        self._lock = RLock()
        self._home: Loop | None = None
        self._borrowed = False  # whether home is the portal's
        self._stopped = False
        self._refreshed: dict[Runner, _Work] = {}
        self._recovering: dict[Runner, _Work] = {}

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
            self._stopped = False
            settled = self._home is not None and self._home.alive
            if not settled or (self._borrowed and loop is not None):
                before, self._refreshed = self._refreshed, {}
                _cancel(work.cancel for work in before.values())
                self._home, self._borrowed = loop or PORTAL.loop(), loop is None
                if loop is not None:
                    load_anyio()
            home = self._home
            assert home is not None  # noqa: S101 - for the type checker
            for runner in runners:
                interval = runner.check.interval
                if interval is not None and runner not in self._refreshed:
                    main = functools.partial(self._refresh, runner, interval)
                    self._spawn(self._refreshed, runner, home, main)

    def recover(self, runner: Runner, *, aside: bool = False) -> None:
        """See to it that the trial of `runner`'s breaker is made when it is due.

        Or that its probe is run where its check is in doubt, with a breaker or without one.
        The loop of a caller who is `aside` is about to end.
        """
        if self._is_recovered(runner):
            return  # without a lock: while a trial is due, each call that is refused comes here
        with self._lock:
            if self._stopped or self._is_recovered(runner):
                return
            home = self._home
            if home is None or not home.alive or home.thread == get_ident():
                home = (None if aside else current_loop()) or PORTAL.loop()
            main = functools.partial(self._try_again, runner)
            self._spawn(self._recovering, runner, home, main)

    def _is_recovered(self, runner: Runner) -> bool:
        work = self._recovering.get(runner)
        return work is not None and work.loop.alive

    @staticmethod
    def _spawn(
        works: dict[Runner, _Work],
        runner: Runner,
        loop: Loop,
        main: Callable[[_Work], Coroutine[Any, Any, None]],
    ) -> None:
        work = works[runner] = _Work(loop)
        work.cancel = loop.spawn(functools.partial(main, work))

    def _leaves(self, works: dict[Runner, _Work], runner: Runner, work: _Work) -> bool:
        """Take `work` out of `works`. Return False if it was ended, or another is in its place."""
        with self._lock:
            ours = works.get(runner) is work
            if ours:
                del works[runner]
            return ours

    async def stop(self, runners: Sequence[Runner]) -> None:
        """End it all, and close the probes."""
        with self._lock:
            works = [*self._refreshed.values(), *self._recovering.values()]
            self._refreshed, self._recovering = {}, {}
            self._home = None
            self._stopped = True
        _cancel([*(work.cancel for work in works), *(runner.cancel for runner in runners)])
        await close_probes(runners)

    async def _refresh(self, runner: Runner, interval: float, work: _Work) -> None:
        try:
            while True:
                with outlived():  # whatever a round breaks down with: the next one comes
                    while rest := runner.rest:  # noqa: ASYNC110 - a clock is no event
                        await anyio.sleep(rest)
                    await self._run_once(runner, work.loop)
                pause = interval * (1 + _JITTER * (2 * self._random() - 1))
                await anyio.sleep(min(pause, runner.check.stale_after - runner.check.timeout))
        finally:
            self._leaves(self._refreshed, runner, work)

    async def _try_again(self, runner: Runner, work: _Work) -> None:
        pause: float | None = 0.0
        try:
            while pause is not None:
                await anyio.sleep(pause)
                pause = _INDECISIVE_PAUSE
                with outlived():
                    pause = await self._try_if_due(runner, work.loop)
        except GeneratorExit:  # dropped with its loop: this may be anywhere, under any lock
            raise
        except BaseException:  # cancelled: its loop was that of one call, and not the app's
            leaves = self._leaves(self._recovering, runner, work)
            if leaves and (_is_to_be_tried(runner) or _is_in_doubt(runner.check)):
                with contextlib.suppress(OSError, RuntimeError, MemoryError):  # no thread to be had
                    self.recover(runner, aside=True)
            raise
        if self._leaves(self._recovering, runner, work) and _is_to_be_tried(runner):
            self.recover(runner)  # opened again before we had said that we leave

    async def _try_if_due(self, runner: Runner, loop: Loop) -> float | None:
        """Make the trial if it is due. Return for how long to pause, or None where none will be.

        A circuit that is closed may yet leave the check in doubt: that takes more passes, or its
        breaker has closed over the trial of another check. Then the probe settles it.
        """
        check, breaker = runner.check, runner.check.breaker
        if not _is_to_be_tried(runner) and not _is_in_doubt(check):
            return None
        pause = None if breaker is None else breaker.retry_after
        if not pause and not runner.rest:
            result = await self._run_once(runner, loop)
            passed = result.raw <= Status.DEGRADED
            if breaker is not None and _is_to_be_tried(runner):
                pause = breaker.retry_after or (0.0 if passed else _INDECISIVE_PAUSE)
            elif passed and _is_in_doubt(check):
                pause = check.max_age
            else:
                return None
        return max(pause or 0.0, runner.rest, _LEAST_PAUSE)

    @staticmethod
    async def _run_once(runner: Runner, loop: Loop) -> Result:
        run = runner.begin(lambda: loop)
        if not isinstance(run, Run):
            return run
        await wait_for([run], math.inf, loop)
        assert run.result is not None  # noqa: S101 - for the type checker: it has been waited for
        return run.result


def _is_to_be_tried(runner: Runner) -> bool:
    breaker = runner.check.breaker
    return breaker is not None and breaker.state in _TO_BE_TRIED


def _is_in_doubt(check: Check) -> bool:
    is_known = check.interval is not None or check.latest.status is not Status.FAILED
    return not is_known and not check.refusing


def _cancel(cancels: Iterable[Callable[[], None]]) -> None:
    for cancel in cancels:
        with contextlib.suppress(LoopGoneError):  # what ran there has ended with its loop
            cancel()
