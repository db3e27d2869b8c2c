"""Runs one check: its timeout, its memory of the last result, its thresholds, its breaker."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from healthmw._damper import Damper
from healthmw._flight import Flight
from healthmw._history import Recorder
from healthmw._in_order import InOrder
from healthmw._loop_protocol import LATE
from healthmw._model import NOTHING_MEASURED, Reason, Result, Status
from healthmw._native import RLock
from healthmw._probe import probing, read_outcome
from healthmw._scrub import outlived, scrub_line
from healthmw._steps import Steps, stepwise
from healthmw._threads import THREADS
from healthmw._told import kept, told
from healthmw._untraced import untraced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from healthmw._breaker import Permit
    from healthmw._check import Check
    from healthmw._loop_protocol import Loop
    from healthmw._model import Measurement
    from healthmw._threads import Job
    from healthmw._witness import Witness

_GRACE = 0.1
"""How long, in seconds, a probe that was cancelled may clean up before it is called stuck."""

_BLOCKING = 0.25
"""A probe that held the event loop for so many seconds in one go is worth a warning."""

logger = logging.getLogger("healthmw")


class Run(Flight):
    """A flight, and what it takes to end it."""

    __slots__ = ("began", "cancel", "given_up", "held_up_by", "job", "loop", "permit", "steps")

    def __init__(self, name: str, timeout: float, on_expiry: Callable[[Run], None]) -> None:
        self.began = time.monotonic()
        super().__init__(self.began + timeout, on_expiry)
        self.permit: Permit | None = None
        self.job: Job | None = None
        self.loop: Loop | None = None
        self.cancel: Callable[[], None] | None = None
        self.steps = Steps(name)
        self.held_up_by = ""
        """The check whose probe blocked the event loop as this one was due; it has more time."""
        self.given_up = False
        """Whether it was cancelled: as its loop came to an end, or the `Health` was closed."""

    @property
    def lost(self) -> bool:
        """Whether it comes back no more: its loop has ended, or has stopped and it is overdue."""
        loop = self.loop
        if loop is None or loop.alive:
            return False
        return loop.ended or time.monotonic() >= self.expires

    def given_up_by_another(self, loop: Callable[[], Loop]) -> bool:
        """Tell whether it was given up, and on another loop than this one, which may run it anew.

        On the same one it would be given up again.
        """
        if not self.given_up or self.loop is None:
            return False
        return self.loop.identity is not loop().identity

    def extend(self, extra: float) -> None:
        """Make it overdue in `extra` seconds from now."""
        self.expires = time.monotonic() + extra


class Runner:
    """Runs one check, at most once at a time in this process, whoever asks.

    `on_result()` is called after each result, in the thread that found it. Of each change of the
    verdict `on_change(check, old, new, failure)` hears, in order and one at a time; `failure` is
    the scrubbed traceback, or empty.
    """

    def __init__(
        self,
        check: Check,
        clock: Callable[[], float],
        on_result: Callable[[], None],
        on_change: Callable[[Check, Result, Result, str], None],
    ) -> None:
        self.check = check
        self._clock = clock
        self._on_result = on_result
        self._on_change = on_change
        self._news: InOrder[tuple[Result, Result, str]] = InOrder()
        self._warned = False
        self._witness: Witness | None = None
        if check.passive and check.breaker is not None:
            from healthmw._witness import Witness

            self._witness = Witness(check, check.breaker, clock)
        self._begin_anew()

    def after_fork(self) -> None:
        """Forget every run and result: they are the parent's."""
        if self._witness is not None:
            self._witness.after_fork()
        self._news.after_fork()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._lock = RLock()  # a signal's handler may overrule the breaker in the midst of it
        self._run: Run | None = None
        self._began = -math.inf
        self._ended = -math.inf
        self._next = -math.inf  # the earliest beginning of another run, by `per_hour`
        self._damper = Damper(self.check)
        self.recorder = Recorder()
        self.check.forget()
        self._told = self.check.latest

    # Reading

    def known(self) -> tuple[Result, float] | None:
        """Return a result that may be served as it is, and until when; None to have the probe run.

        Whoever reads a background check never runs it: UNKNOWN is an answer, too.
        """
        check = self.check
        if check.interval is not None:
            return self.last_known()
        if check.refusing:
            refused = self.refused()
            if not refused.retry_after and not self._on_its_way():
                return None  # a trial is due, and who asks makes it
            return refused, self._clock() + min(check.max_age, refused.retry_after or 0.0)
        ended = self._ended  # first: a newer result would have the time of an older one, not more
        latest = check.latest
        age = check.max_age
        if check.failure_max_age is not None and max(latest.raw, latest.status) > Status.DEGRADED:
            age = check.failure_max_age
        good_until = ended + age
        if self.under_way is None:
            good_until = max(good_until, self._next)
        return (latest, good_until) if self._clock() < good_until else None

    def last_known(self) -> tuple[Result, float]:
        """Return the last result, UNKNOWN where it is stale, and until when that holds."""
        check = self.check
        if check.refusing:
            return self.refused(), self._clock() + check.max_age
        now, good_until = self._clock(), self._ended + check.stale_after
        latest = check.latest  # after that which it is as old as, as in `known()`
        if latest.reason is Reason.NEVER_RUN:
            return latest, now + check.max_age
        if now < good_until:
            return latest, good_until
        stale = replace(latest, status=Status.UNKNOWN, reason=Reason.STALE)
        return stale, now + check.max_age

    @property
    def rest(self) -> float:
        """For how many seconds yet `per_hour` allows no run."""
        return 0.0 if self.check.per_hour is None else max(self._next - self._clock(), 0.0)

    def _on_its_way(self) -> bool:
        """Tell whether a run is under way and not overdue: for a trial nobody is to wait."""
        run = self._run
        return run is not None and not run.lost and time.monotonic() < run.expires

    def refused(self) -> Result:
        """Return what an open breaker answers in place of the probe."""
        check = self.check
        latest, wait = check.latest, check.retry_after
        passed = latest.raw <= Status.DEGRADED  # then its detail is not why the circuit is open
        return replace(
            latest,
            status=Status.FAILED,
            reason=Reason.CIRCUIT_OPEN,
            detail="" if passed else latest.detail,
            measurements=NOTHING_MEASURED,
            retry_after=None if wait is None else max(wait, self.rest),
        )

    # Running

    def begin(
        self, loop: Callable[[], Loop], *, seen: Result | None = None, fresh: bool = False
    ) -> Result | Run:
        """Return the run under way, begun if there was none; or a result where none is needed.

        `seen` is the result that the caller found too old: one that has come in since will do.
        `fresh` asks for a run even where the app's own calls have shown that all is well.
        """
        latest = self.check.latest
        if not fresh and self._witnessed():
            said = "seen in the app's own calls"
            return self._record(Status.OKAY, Reason.OKAY, detail=said, after=latest)
        under_way = self._run
        if under_way is not None and under_way.result is None and not under_way.lost:
            return under_way
        ours = Run(self.check.name, self.check.timeout, self._overdue)
        found = self._join(ours, seen)
        if found is ours:
            self._start(ours, loop)
        return found

    def _join(self, new: Run, seen: Result | None) -> Result | Run:
        """Return the run under way, or a result that makes one needless; else `new`, now ours."""
        with self._lock:
            run = self._run
            if run is None or run.lost:
                if seen is not None and seen is not self.check.latest:
                    return self.check.latest
                if self.rest:
                    return self.refused() if self.check.refusing else self.check.latest
                self._run = new
                return new
            if run.result is None:
                return run
            latest = self.check.latest
        if time.monotonic() < run.expires + _GRACE:
            return self.check.latest
        lasted = time.monotonic() - run.began
        detail = f"a run begun {lasted:.0f} s ago has not come back; none is begun beside it"
        return self._record(Status.FAILED, Reason.STUCK, detail=detail, after=latest)

    def _start(self, run: Run, loop: Callable[[], Loop]) -> None:
        breaker = self.check.breaker
        try:
            if breaker is not None:
                run.permit = breaker.try_acquire(trial=True)
                if run.permit is None:
                    self._landed(run)
                    run.claim()
                    run.settle(self.refused())
                    return
                run.permit._of_probe = True  # noqa: SLF001 - the same house
            self._began = self._clock()
            if self.check.per_hour is not None:
                self._next = self._began + self.check.spacing
            self._launch(run, loop)
        except Exception as exc:  # noqa: BLE001 - no thread, file or memory to be had, or no loop
            self._next = -math.inf  # the probe has not run
            self._failed(run, exc)
        except BaseException:  # Ctrl-C, in the thread of who asks
            self._cancelled(run)
            raise

    def _witnessed(self) -> bool:
        """Tell whether the app's own calls have shown that all is well."""
        witness = self._witness
        if witness is None or not witness.hears_well():
            return False
        return self._run is None and not self.check.refusing

    def _launch(self, run: Run, loop: Callable[[], Loop]) -> None:
        if self.check.is_async:
            self._spawn(run, loop(), self.check.probe)
        else:
            run.job = THREADS.start(functools.partial(self._attempt_in_thread, run, loop))

    def _spawn(self, run: Run, loop: Loop, call: Callable[[], Awaitable[Any]]) -> None:
        run.loop = loop
        left = run.expires - time.monotonic()
        run.cancel = loop.spawn(functools.partial(self._attempt, run, loop, call, left))

    def _attempt_in_thread(self, run: Run, loop: Callable[[], Loop]) -> None:
        try:
            probing.set(run.permit)
            with untraced():
                value = self.check.probe()
            if inspect.isawaitable(value):  # as `lambda: client.ping()` gives, of an async client
                self._spawn(run, loop(), lambda: value)
                return
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is this check's failure
            self._expire_if_due(run)
            self._failed(run, exc)
        else:
            self._expire_if_due(run)
            self._returned(run, value)

    def _expire_if_due(self, run: Run) -> None:
        """See to it that a run is overdue even where nobody has waited long enough to see it."""
        if time.monotonic() >= run.expires:
            self.expire(run)

    async def _attempt(
        self, run: Run, loop: Loop, call: Callable[[], Awaitable[Any]], left: float
    ) -> None:
        expire = functools.partial(self.expire, run)
        # What kept it from beginning is no fault of its own: it had so much time `left`.
        run.expires = max(run.expires, time.monotonic() + left)
        remaining = max(run.expires - time.monotonic(), 0.0)
        value = None  # where the time limit has ended the call, nobody asks for more
        probing.set(run.permit)
        try:
            with untraced(), loop.time_limit(remaining, expire, run.extend):
                value = await stepwise(call(), run.steps)
        except GeneratorExit:  # the loop has ended and dropped its tasks
            self._cancelled(run)
        except BaseException as exc:
            if loop.is_cancelled(exc):  # the loop is about to end, or the `Health` closes
                self._cancelled(run)
                raise
            self._failed(run, exc)
            if issubclass(type(exc), KeyboardInterrupt) and loop.hears_ctrl_c:
                raise
        else:
            self._returned(run, value)
        finally:
            self._landed(run)
            self._warn_if_blocking(run)

    def expire(self, run: Run) -> None:
        """Call `run` overdue. It may still come back; until then no other is begun."""
        if run.claim():
            blocked = run.steps.longest
            detail = f"not back within {self.check.timeout:g} s"
            if blocked > self.check.timeout:
                detail += f"; it blocked the event loop for {blocked:.1f} s"
            elif run.held_up_by:
                detail += f"; check {run.held_up_by} blocked the event loop"
            try:
                if run.permit is not None:
                    run.permit.failure()
            finally:  # they wait for it, whatever a clock of the user's own makes of that
                self._settle(run, Status.FAILED, Reason.TIMEOUT, detail=detail, landed=False)
        if run.job is not None and THREADS.abandon(run.job):
            self._next = -math.inf  # the probe has not run
            self._landed(run)

    def _overdue(self, run: Run) -> None:
        """Do so for a reader, unless another probe blocks its loop: then it has more time, once."""
        if time.monotonic() < run.expires:
            return  # another reader has seen to it
        if run.loop is not None and not run.held_up_by:
            held_up_by = run.steps.held_up(run.loop.thread, LATE)
            if held_up_by:
                run.extend(self.check.timeout)
                run.held_up_by = held_up_by
                return
        self.expire(run)

    def cancel(self) -> None:
        """Cancel the run under way, if it is one that can be cancelled."""
        run = self._run
        if run is not None and run.cancel is not None:
            run.cancel()

    @property
    def under_way(self) -> Run | None:
        """The run under way, or the one that is stuck."""
        return self._run

    # Outcomes

    def _returned(self, run: Run, value: object) -> None:
        if run.steps.longest > self.check.timeout:
            self.expire(run)
        try:
            degraded, measured = read_outcome(value)
            measurements = kept(measured)
        except BaseException as exc:  # noqa: BLE001 - a mapping of the user's own may raise anything
            self._failed(run, exc)
            return
        if not run.claim():
            self._landed(run)
            return
        if run.permit is not None:
            try:
                run.permit.success()
            except BaseException as exc:  # noqa: BLE001 - a clock of the user's own may raise, too
                self._settle_failed(run, exc)
                return
            if self._witness is not None:
                self._witness.forget_successes()  # the probe may have called by way of a guard
            if run.permit.failed:
                said = "a guarded call that the probe has made failed"
                self._settle(run, Status.FAILED, Reason.FAILED, detail=said)
                return
        if degraded is None:
            self._settle(run, Status.OKAY, Reason.OKAY, measurements=measurements)
        else:
            detail = scrub_line(degraded)
            self._settle(
                run, Status.DEGRADED, Reason.DEGRADED, detail=detail, measurements=measurements
            )

    def _failed(self, run: Run, error: BaseException) -> None:
        if run.claim():
            self._settle_failed(run, error)
        else:
            self._landed(run)

    def _settle_failed(self, run: Run, error: BaseException) -> None:
        """Settle `run`, which is claimed. Whatever `error` is made of, they wait for its end."""
        reason, detail, failure = Reason.FAILED, type(error).__name__, ""
        try:
            if run.permit is not None:
                if isinstance(error, Exception):
                    run.permit.record(error)
                else:  # a breaker takes these for its caller's end; of a probe they are a failure
                    run.permit.failure()
            reason, detail, failure = told(error)
        except BaseException:  # noqa: BLE001, S110 - it can't even be told; its type's name will do
            pass
        self._settle(run, Status.FAILED, reason, detail=detail, failure=failure)

    def _cancelled(self, run: Run) -> None:
        self._landed(run)
        if run.claim():
            if run.permit is not None:
                run.permit.cancelled()
            run.given_up = True
            run.settle(self._unknown())

    def _unknown(self) -> Result:
        """Return what there is to say where a run has brought nothing."""
        latest = self.check.latest
        reason = Reason.NEVER_RUN if latest.reason is Reason.NEVER_RUN else Reason.STALE
        return replace(latest, status=Status.UNKNOWN, reason=reason)

    def _landed(self, run: Run) -> None:
        if self._run is run:
            with self._lock:
                if self._run is run:
                    self._run = None

    def _settle(
        self,
        run: Run,
        raw: Status,
        reason: Reason,
        *,
        detail: str = "",
        measurements: Mapping[str, Measurement] = NOTHING_MEASURED,
        failure: str = "",
        landed: bool = True,
    ) -> None:
        result = None
        try:
            result = self._record(
                raw,
                reason,
                detail=detail,
                duration=time.monotonic() - run.began,
                measurements=measurements,
                failure=failure,
                landed=run if landed else None,
                began=self._began,
            )
        finally:  # a broken clock must not keep them waiting, or the next run from beginning
            if landed:
                self._landed(run)
            run.settle(self._unknown() if result is None else result)
        if not landed:
            self.review()  # of what came in the meantime

    def _record(
        self,
        raw: Status,
        reason: Reason,
        *,
        detail: str = "",
        duration: float = 0.0,
        measurements: Mapping[str, Measurement] = NOTHING_MEASURED,
        failure: str = "",
        landed: Run | None = None,
        began: float | None = None,
        after: Result | None = None,
    ) -> Result:
        """Keep a result, of a run that `began` then; without one, of now.

        If another has come in `after` that which it goes by, return that instead.
        """
        check = self.check
        ended = self._clock()
        with self._lock:
            old = check.latest
            if after is not None and after is not old:
                return old
            outdated = (ended if began is None else began) >= self._ended + check.stale_after
            status, reason = self._damper.verdict(old, raw, reason, outdated=outdated)
            new = check.latest = Result(
                name=check.name,
                status=status,
                reason=reason,
                raw=raw,
                critical=check.critical,
                detail=detail,
                duration=duration,
                when=datetime.now(UTC),
                measurements=measurements,
            )
            self._ended = ended
            self.recorder.result(new, ended)
            self._note(ended, failure)
            # In one step with the result: who finds no run under way finds what it brought.
            if landed is not None and self._run is landed:
                self._run = None
        self._on_result()
        self._news.hand_on(self._tell)
        return new

    def review(self) -> None:
        """Tell of it if the verdict has changed with the circuit."""
        now = self._clock()
        with self._lock:
            run = self._run
            if run is None or not run.claimed or run.result is not None:
                self._note(now)
            # Else one is just being recorded, and its result tells more than that of the circuit.
        self._news.hand_on(self._tell)

    def _note(self, now: float, failure: str = "") -> None:
        """Note the verdict, if it is another than was told last. Under the lock."""
        # Once more, for in the midst of it the circuit may have changed and been told.
        while (new := self._shown()).status is not self._told.status:
            old, self._told = self._told, new
            self.recorder.change(old, new, now)
            self._news.waiting.append((old, new, failure if new is self.check.latest else ""))

    def _shown(self) -> Result:
        """Return the verdict as it is to be told; while nothing is known, what was told last."""
        latest = self.check.latest
        if latest.status is not Status.FAILED and self.check.refusing:
            return replace(self.refused(), when=datetime.now(UTC))
        return self._told if latest.reason is Reason.NEVER_RUN else latest

    def _tell(self, news: tuple[Result, Result, str]) -> None:
        with outlived():  # a broken log is no affair of who waits for the result
            self._on_change(self.check, *news)

    def _warn_if_blocking(self, run: Run) -> None:
        if run.steps.longest > _BLOCKING and not self._warned:
            self._warned = True
            logger.warning(
                "check %s blocked the event loop for %.2f s: make its probe a plain function, "
                "so that it runs in a thread, or have it await",
                self.check.name,
                run.steps.longest,
            )
