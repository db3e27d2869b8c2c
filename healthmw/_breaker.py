"""The circuit breaker: a state machine without I/O, for threads, asyncio and trio at once."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, Literal

from healthmw._breaker_events import Events
from healthmw._breaker_judge import Judge
from healthmw._breaker_phase import Phase, Tally
from healthmw._breaker_rules import read_rules
from healthmw._breaker_state import BreakerEvent, BreakerSnapshot, BreakerState, Outcome, Watcher
from healthmw._fork import each_in_child
from healthmw._jitter import draw as draw_jitter
from healthmw._native import RLock
from healthmw._options import check_function

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSED = BreakerState.CLOSED
OPEN = BreakerState.OPEN
HALF_OPEN = BreakerState.HALF_OPEN
SUCCESS = Outcome.SUCCESS
FAILURE = Outcome.FAILURE


class Permit:
    """Leave for one call, to be answered with its outcome: once, and a second answer is ignored.

    Its time runs from `CircuitBreaker.try_acquire`. A permit that is dropped unanswered holds up
    nothing, but for a trial's slot, and that for no longer than `half_open_max_wait`.
    """

    __slots__ = ("_breaker", "_of_probe", "_outcome", "_phase", "_started")

    def __init__(self, breaker: CircuitBreaker, phase: Phase, started: float) -> None:
        self._breaker = breaker
        self._of_probe = False  # whether it is a probe that calls, and not the app
        self._phase = phase
        self._started = started
        self._outcome: Outcome | None = None

    @property
    def failed(self) -> bool:
        """Whether it was answered with a failure."""
        return self._outcome is FAILURE

    def success(self, result: object = None) -> Outcome:
        """Say that the call returned `result`; `is_failure_result` may see a failure in it."""
        return self.record(None, result)

    def failure(self) -> None:
        """Say that the call failed, whatever `is_failure` and `ignore` think: a timeout, say."""
        self._breaker._settle(self, FAILURE)

    def ignored(self) -> None:
        """Say that its end tells nothing about the dependency: nothing is recorded."""
        self._breaker._settle(self, Outcome.IGNORED)

    def cancelled(self) -> None:
        """Say that the caller gave up before there was a result: nothing is recorded."""
        self._breaker._settle(self, Outcome.CANCELLED)

    def record(self, exception: BaseException | None, result: object = None) -> Outcome:
        """Answer with how the call ended, and return what the breaker takes that for.

        What isn't an `Exception` is a cancellation: asyncio's and trio's, `GeneratorExit`,
        `KeyboardInterrupt`, `SystemExit`.
        """
        breaker = self._breaker
        if exception is None and (self._of_probe or not breaker._judge.reads_results):
            breaker._settle(self, SUCCESS)
            return SUCCESS
        try:
            outcome = breaker._judge(exception, result)
        except BaseException:
            self.cancelled()  # a predicate was interrupted: a trial's slot must not stay taken
            raise
        breaker._settle(self, outcome)
        return outcome


class CircuitBreaker:
    """Refuses calls to a dependency that is down, and finds out when it is back.

    It opens by one of two rules, or by whichever comes first where both are given:

    - `consecutive_failures` in a row (5, unless a window is given). This is heard at any rate of
      calls: a probe every 10 s opens it within a minute, a call every 20 ms within a tenth of a
      second; and the few failures that any traffic has don't make five in a row.
    - A window over the last `window_calls`, or over the last `window_seconds`: with `minimum_calls`
      (10, or `window_calls` if fewer) or more in it, a share of failures of `failure_rate` (0.5) or
      more, or a share of calls that took `slow_call_duration` seconds or longer of `slow_call_rate`
      (0.5) or more. It is for traffic. Probes alone may never make up the minimum: give
      `consecutive_failures` as well.

    It stays open for `open_for` seconds (5), and after a failed trial `backoff` times (2) as long
    as before, up to `open_for_max` (30, or `open_for` if longer). Each wait is shortened by up to
    the fraction `jitter` (0.1) at random, so that not all processes try at once. A dependency that
    was down for a moment is in use again after seconds; one that was down for long half a minute
    after its return at the latest, and meanwhile it had two trials a minute to bear.

    Once the wait is over, `half_open_calls` trials (1) are let through, and they alone decide: one
    failure opens it again (with a window only, a share of failed or slow ones as above), and as
    many results without that close it. A trial that isn't back after `half_open_max_wait` seconds
    (30) has failed.

    Every `Exception` is a failure, unless it is one of the classes in `ignore` (or a group of
    nothing else), or `is_failure(exception)` is given and false: such a one says nothing about the
    dependency, and is neither failure nor success. `is_failure_result(result)` finds failure in
    what the app's call returned; of a probe's result it isn't asked, for a probe that fails raises.
    A predicate that raises is logged, and the call is a failure. Cancellation is never recorded.

    `clock` returns monotonic seconds, `random` a number from 0 up to 1. Wrong options raise
    `ValueError`. Usable from all threads and event loops at once; nothing blocks.
    """

    def __init__(
        self,
        *,
        consecutive_failures: int | None = None,
        window_calls: int | None = None,
        window_seconds: float | None = None,
        minimum_calls: int | None = None,
        failure_rate: float | None = None,
        slow_call_duration: float | None = None,
        slow_call_rate: float | None = None,
        half_open_calls: int = 1,
        half_open_max_wait: float = 30.0,
        open_for: float = 5.0,
        backoff: float = 2.0,
        open_for_max: float | None = None,
        jitter: float = 0.1,
        is_failure: Callable[[Exception], bool] | None = None,
        ignore: type[BaseException] | tuple[type[BaseException], ...] = (),
        is_failure_result: Callable[[Any], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = draw_jitter,
    ) -> None:
        self._rules = read_rules(
            consecutive_failures=consecutive_failures,
            window_calls=window_calls,
            window_seconds=window_seconds,
            minimum_calls=minimum_calls,
            failure_rate=failure_rate,
            slow_call_duration=slow_call_duration,
            slow_call_rate=slow_call_rate,
            half_open_calls=half_open_calls,
            half_open_max_wait=half_open_max_wait,
            open_for=open_for,
            backoff=backoff,
            open_for_max=open_for_max,
            jitter=jitter,
        )
        check_function("clock", clock)
        check_function("random", random)
        self._judge = Judge(
            is_failure=is_failure, ignore=ignore, is_failure_result=is_failure_result
        )
        self._clock = clock
        self._random = random
        self._lock = RLock()
        self._events = Events()
        self._timed = slow_call_duration is not None
        self._slow_after = slow_call_duration or 0.0
        # Then there is nothing to a success but to be counted.
        self._quick = self._rules.window() is None and not self._judge.reads_results
        self._rejected = Tally()
        self._opened_count = 0
        self._past_successes = 0
        self._past_failures = 0
        self._probes_successes = 0
        self._watchers: tuple[weakref.ref[Watcher], ...] = ()
        self._phase = self._new_phase(CLOSED)
        _breakers.add(self)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self._phase.state}>"

    # Asking for leave

    def try_acquire(self, *, trial: bool = True) -> Permit | None:
        """Return a permit for one call, or None where it is refused.

        With `trial=False` the caller may not make the trial that decides whether to close again: it
        is refused until somebody else's trial has gone well.
        """
        phase = self._phase
        if phase.admits:
            return Permit(self, phase, self._clock() if self._timed else 0.0)
        now = self._clock()
        due = phase.state is HALF_OPEN or now >= phase.due
        if due and not trial:
            for watcher in self._watching():
                watcher.on_trial_due()
        if not (due and trial) and not self._events.rejections_heard:
            self._rejected.add()  # a crowd that is refused takes no lock
            return None
        draw = self._random()
        with self._lock:
            permit = self._admit(now, draw, trial=trial)
            if permit is None:
                self._rejected.add()
                if self._events.rejections_heard:
                    self._announce("rejected", self._phase.state, now)
        self._events.deliver()
        return permit

    @property
    def available(self) -> bool:
        """Whether calls pass: neither open nor half-open. Cheap enough to ask for every page."""
        return self._phase.admits

    # Looking

    @property
    def state(self) -> BreakerState:
        """The state. It stays `OPEN` when the wait is over, until somebody makes a trial."""
        state = self._seen()
        self._deliver()
        return state

    @property
    def retry_after(self) -> float | None:
        """Seconds until a trial is due; 0.0 if one is, or is under way; None if none will be."""
        wait = self._wait_seen()
        self._deliver()
        return wait

    def snapshot(self) -> BreakerSnapshot:
        """Return state, counts and rates as they are now."""
        now = self._look()
        self._deliver()
        with self._lock:
            phase = self._phase
            calls, failures, slow = phase.counts(now)
            total_successes, total_failures = self._totals()
            return BreakerSnapshot(
                state=phase.state,
                calls=calls,
                failures=failures,
                successes=calls - failures,
                slow=slow,
                failure_rate=failures / calls if calls else None,
                slow_call_rate=slow / calls if calls else None,
                consecutive_failures=phase.streak,
                retry_after=self._retry_after(now),
                rejected=self._rejected.read(),
                opened_count=self._opened_count,
                total_successes=total_successes,
                total_failures=total_failures,
            )

    def subscribe(
        self, listener: Callable[[BreakerEvent], object], *, rejected: bool = True
    ) -> Callable[[], None]:
        """Call `listener(event)` on each change of state and each refusal; returns what ends that.

        `rejected=False` leaves refusals out, and makes them cheaper where nobody hears of them.
        Events come in order and one at a time, on a thread that had news itself, so a listener has
        to be quick. What it raises is logged and hurts nobody.
        """
        check_function("listener", listener)
        return self._events.subscribe(listener, rejected=rejected)

    # Overruling

    def force_open(self) -> None:
        """Refuse every call until `reset`."""
        self._overrule(BreakerState.FORCED_OPEN)

    def disable(self) -> None:
        """Let every call pass and count nothing, until `reset`."""
        self._overrule(BreakerState.DISABLED)

    def metrics_only(self) -> None:
        """Count calls, but never open, until `reset`."""
        self._overrule(BreakerState.METRICS_ONLY)

    def reset(self) -> None:
        """Close, with nothing counted yet; what calls under way will bring counts no more."""
        self._overrule(CLOSED)

    def _overrule(self, state: BreakerState) -> None:
        now = self._clock()
        with self._lock:
            self._enter(self._new_phase(state), now)
        self._events.deliver()

    # The machine. `now` and `draw` are read before the lock is taken: both are the user's code.

    def _settle(self, permit: Permit, outcome: Outcome) -> None:
        """Take the outcome of a permit, the first time."""
        now, draw = self._clock(), self._random()
        with self._lock:
            if self._phase.trials:
                self._expire(now, draw)
            if permit._outcome is None:
                self._take(permit, outcome, now, draw)
        self._deliver()

    def _take(self, permit: Permit, outcome: Outcome, now: float, draw: float) -> None:
        permit._outcome = outcome
        phase = permit._phase
        if phase is not self._phase:
            return  # it comes from before the last transition
        phase.trials.pop(permit, None)
        if outcome is SUCCESS or outcome is FAILURE:
            slow = self._timed and now - permit._started >= self._slow_after
            phase.count(now, failed=outcome is FAILURE, slow=slow)
            self._probes_successes += permit._of_probe and outcome is SUCCESS
            if phase.state is CLOSED:
                if self._rules.opens(phase.streak, phase.window):
                    self._open(phase, now, draw)
            elif phase.state is HALF_OPEN:
                self._judge_trials(phase, now, draw)

    def _judge_trials(self, phase: Phase, now: float, draw: float) -> None:
        calls, failures, slow = phase.counts(now)
        if self._rules.reopens(failures, slow):
            self._open(phase, now, draw)
        elif calls == self._rules.half_open_calls:
            self._enter(self._new_phase(CLOSED), now)

    def _admit(self, now: float, draw: float, *, trial: bool) -> Permit | None:
        """Give a permit where the state and the trials that are out leave room for it."""
        self._expire(now, draw)
        phase = self._phase
        if phase.admits:
            return Permit(self, phase, now)
        if not trial:
            return None
        if now >= phase.due:
            phase = Phase(HALF_OPEN, streak=phase.streak, wait=phase.wait)
            self._enter(phase, now)
        if phase.state is not HALF_OPEN:
            return None
        if len(phase.trials) + phase.counts(now)[0] >= self._rules.half_open_calls:
            return None
        permit = Permit(self, phase, now)
        phase.trials[permit] = now
        return permit

    def _expire(self, now: float, draw: float) -> None:
        """Take trials that are overdue for failed, as of when they were."""
        while trials := self._phase.trials:
            permit, began = next(iter(trials.items()))
            overdue = began + self._rules.half_open_max_wait
            if now < overdue:
                break
            self._take(permit, Outcome.FAILURE, overdue, draw)

    def _open(self, phase: Phase, now: float, draw: float) -> None:
        wait = self._rules.next_wait(phase.wait)
        self._opened_count += 1
        self._enter(
            Phase(
                OPEN,
                streak=phase.streak,
                wait=wait,
                due=now + wait * (1.0 - self._rules.jitter * draw),
                opened_by=phase.counts(now),
            ),
            now,
        )

    def _new_phase(self, state: BreakerState) -> Phase:
        counting = state is CLOSED or state is BreakerState.METRICS_ONLY
        return Phase(state, quick=self._quick, window=self._rules.window() if counting else None)

    def _enter(self, phase: Phase, now: float) -> None:
        old, self._phase = self._phase, phase
        for watcher in self._watching():
            watcher.on_transition()
        self._past_successes += old.successes.read()
        self._past_failures += old.failures
        if phase.state is not old.state:
            self._announce("state_changed", old.state, now)

    def _announce(
        self, kind: Literal["state_changed", "rejected"], old: BreakerState, now: float
    ) -> None:
        after = self._retry_after(now)
        new = self._phase.state
        self._events.put(BreakerEvent(kind=kind, old=old, new=new, at=now, retry_after=after))

    def _retry_after(self, now: float) -> float | None:
        phase = self._phase
        if phase.state is OPEN:
            return max(0.0, phase.due - now)
        return 0.0 if phase.state is HALF_OPEN else None

    def _look(self) -> float:
        """Return the time, when what happens by itself has happened: trials that are overdue."""
        now = self._clock()
        if self._phase.trials:
            draw = self._random()
            with self._lock:
                self._expire(now, draw)
        return now

    def _deliver(self) -> None:
        """Tell the listeners what there is to tell. They are the user's: hold no lock."""
        if self._events.waiting:
            self._events.deliver()

    # For the rest of the house

    def _seen(self) -> BreakerState:
        """Return the state, for who may hold a lock: the listeners are told by the next caller."""
        if self._phase.trials:
            self._look()
        return self._phase.state

    def _wait_seen(self) -> float | None:
        """Return `retry_after`, in the same way."""
        return self._retry_after(self._look())

    def _watch(self, watcher: Watcher) -> None:
        """Keep `watcher` informed for as long as it lives."""
        with self._lock:
            self._watchers = (*map(weakref.ref, self._watching()), weakref.ref(watcher))
        self._events.subscribe(weakref.WeakMethod(watcher.on_event), rejected=False)

    def _watching(self) -> list[Watcher]:
        return [watcher for ref in self._watchers if (watcher := ref()) is not None]

    def _use(self, clock: Callable[[], float], random_: Callable[[], float]) -> None:
        """Go by these from now on, each where the user gave none."""
        if self._clock is time.monotonic:
            self._clock = clock
        if self._random is draw_jitter:
            self._random = random_

    def _totals(self) -> tuple[int, int]:
        """Return all successes and failures so far. It asks no clock, so it works anywhere."""
        with self._lock:
            phase = self._phase
            successes = self._past_successes + phase.successes.read()
            return successes, self._past_failures + phase.failures

    def _evidence(self) -> tuple[int, int]:
        """Return the successes of the app's own calls so far, and all failures."""
        with self._lock:
            successes, failures = self._totals()
            return successes - self._probes_successes, failures

    def _after_fork(self) -> None:
        """Renew the locks, and forget who is at a trial: those threads are the parent's."""
        self._lock = RLock()
        self._events.after_fork()
        self._phase.trials.clear()


_breakers = each_in_child(CircuitBreaker._after_fork)
