"""What other circuit breakers get wrong, and that our tests would see it in ours.

A behaviour is a function that raises where a breaker (or guard) behaves badly. Ours passes all of
them. A mutant is ours with one defect of another library built in, and it must fail a behaviour.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import pytest
import trio

from healthmw import CircuitBreaker, DependencyUnavailable
from healthmw._breaker import Permit
from healthmw._breaker_judge import Judge
from healthmw._breaker_state import BreakerEvent, Outcome
from healthmw._guard import Guard
from tests.breaker_kit import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    PATIENCE,
    Clock,
    acquire,
    fail,
    in_threads,
    make_breaker,
    succeed,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from healthmw._breaker_phase import Phase


class CallError(Exception):
    """What a guarded call raises."""


@dataclass
class Kit:
    """The breaker and the guard under test."""

    breaker: Callable[..., CircuitBreaker] = CircuitBreaker
    guard: Callable[..., Guard[Any]] = Guard
    patience: float = PATIENCE

    def make(self, clock: Clock | None = None, **options: Any) -> CircuitBreaker:
        return make_breaker(clock or Clock(), self.breaker, **options)

    def half_open(self, **options: Any) -> tuple[CircuitBreaker, Clock]:
        """A breaker whose trial is due."""
        clock = Clock()
        breaker = self.make(clock, **options)
        fail(breaker, 3)
        clock.forward(10)
        return breaker, clock


def cancel_in_asyncio(call: Callable[[], Any]) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())


def cancel_in_trio(call: Callable[[], Any]) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await call()

    trio.run(main)


async def hang() -> None:
    if asyncio_runs():
        await asyncio.sleep(PATIENCE)
    else:
        await trio.sleep(PATIENCE)


def asyncio_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# Behaviours


def calls_through_a_closed_breaker_overlap(kit: Kit) -> None:
    all_inside = threading.Barrier(10)

    @kit.guard(name="x", breaker=kit.make())
    def call() -> None:
        all_inside.wait(kit.patience)

    in_threads(10, lambda _: call())


def a_coroutine_function_that_fails_opens_it(kit: Kit) -> None:
    breaker = kit.make()

    @kit.guard(name="x", breaker=breaker)
    async def call() -> None:
        raise CallError

    for _ in range(3):
        with contextlib.suppress(CallError):
            asyncio.run(call())
    assert breaker.state is OPEN


def the_exception_that_opened_it_is_raised_itself(kit: Kit) -> None:
    raised = CallError()

    @kit.guard(name="x", breaker=kit.make(consecutive_failures=1))
    def call() -> None:
        raise raised

    with pytest.raises((CallError, DependencyUnavailable)) as caught:
        call()
    assert caught.value is raised
    assert raised.__cause__ is None
    assert raised.__context__ is None


def an_interrupted_call_is_no_failure(kit: Kit) -> None:
    for interruption in (KeyboardInterrupt, SystemExit):
        breaker = kit.make(consecutive_failures=1)
        acquire(breaker).record(interruption())
        assert breaker.state is CLOSED


def a_cancelled_call_is_no_failure(kit: Kit) -> None:
    for cancel in (cancel_in_asyncio, cancel_in_trio):
        breaker = kit.make(consecutive_failures=1)
        cancel(kit.guard(name="x", breaker=breaker)(hang))
        assert breaker.state is CLOSED


def a_cancelled_call_is_no_success(kit: Kit) -> None:
    for cancel in (cancel_in_asyncio, cancel_in_trio):
        breaker = kit.make()
        fail(breaker, 2)
        cancel(kit.guard(name="x", breaker=breaker)(hang))
        assert breaker.snapshot().consecutive_failures == 2


def a_cancelled_trial_does_not_close_it(kit: Kit) -> None:
    for cancel in (cancel_in_asyncio, cancel_in_trio):
        breaker, _ = kit.half_open()
        cancel(kit.guard(name="x", breaker=breaker, trial=True)(hang))
        assert breaker.state is HALF_OPEN


def a_generator_closed_early_is_no_failure(kit: Kit) -> None:
    breaker = kit.make(consecutive_failures=100)
    close_early(kit, breaker)
    assert breaker.snapshot().failures == 0


def a_generator_closed_early_is_no_success(kit: Kit) -> None:
    breaker = kit.make()
    fail(breaker, 2)
    close_early(kit, breaker)
    assert breaker.snapshot().consecutive_failures == 2


def close_early(kit: Kit, breaker: CircuitBreaker) -> None:
    @kit.guard(name="x", breaker=breaker)
    def items() -> Iterator[int]:
        yield 1
        yield 2

    @kit.guard(name="x", breaker=breaker)
    async def async_items() -> AsyncIterator[int]:
        yield 1
        yield 2

    generator = cast("Any", items())
    assert next(generator) == 1
    generator.close()

    async def main() -> None:
        async_generator = cast("Any", async_items())
        assert await anext(async_generator) == 1
        await async_generator.aclose()

    asyncio.run(main())
    trio.run(main)


def an_exception_that_is_not_listed_is_no_success(kit: Kit) -> None:
    breaker = kit.make(is_failure=lambda exc: isinstance(exc, OSError))
    fail(breaker, 2)
    acquire(breaker).record(CallError())
    assert breaker.snapshot().consecutive_failures == 2


def only_the_trials_pass_of_a_crowd(kit: Kit) -> None:
    breaker, _ = kit.half_open(half_open_calls=2)
    passed: list[Permit | None] = []
    in_threads(100, lambda _: passed.append(breaker.try_acquire()))
    assert sum(permit is not None for permit in passed) == 2


def the_wait_is_the_same_in_every_time_zone(kit: Kit) -> None:
    before = os.environ.get("TZ")
    try:
        for zone in ("UTC", "Asia/Tokyo", "America/Los_Angeles"):
            os.environ["TZ"] = zone
            time.tzset()
            breaker = kit.breaker(consecutive_failures=1, open_for=1000.0, jitter=0.0)
            fail(breaker)
            assert breaker.try_acquire() is None, zone
            assert breaker.retry_after == pytest.approx(1000, abs=PATIENCE), zone
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


def a_step_of_the_wall_clock_changes_nothing(kit: Kit) -> None:
    breaker = kit.breaker(consecutive_failures=1, open_for=1000.0, jitter=0.0)
    fail(breaker)
    for step in (-1e6, 1e6):
        now = time.time() + step
        with mock.patch("time.time", lambda now=now: now):
            assert breaker.retry_after == pytest.approx(1000, abs=PATIENCE)
            assert breaker.try_acquire() is None


def each_refusal_raises_a_new_exception(kit: Kit) -> None:
    breaker = kit.make()
    breaker.force_open()

    @kit.guard(name="x", breaker=breaker)
    def call() -> None:
        """Never called."""

    depths = []
    for _ in range(1000):
        with pytest.raises(DependencyUnavailable) as caught:
            call()
        depths.append(len(caught.traceback))
    assert max(depths) == depths[0]


def no_failure_is_lost_between_threads(kit: Kit) -> None:
    breaker = kit.make()
    breaker.metrics_only()
    in_threads(8, lambda _: fail(breaker, 25))
    assert breaker.snapshot().total_failures == 200


def a_late_success_closes_nothing(kit: Kit) -> None:
    breaker = kit.make()
    late = acquire(breaker)
    fail(breaker, 3)
    late.success()
    assert breaker.state is OPEN


def a_late_failure_opens_nothing(kit: Kit) -> None:
    breaker = kit.make()
    late = [acquire(breaker) for _ in range(5)]
    breaker.reset()
    for permit in late:
        permit.failure()
    assert breaker.state is CLOSED


def what_a_listener_raises_does_not_reach_the_caller(kit: Kit) -> None:
    breaker = kit.make(consecutive_failures=1)

    def broken(_: BreakerEvent) -> None:
        raise ConnectionError("the store of the counters is down")

    breaker.subscribe(broken)

    @kit.guard(name="x", breaker=breaker, fallback="fallback")
    def call() -> str:
        raise CallError

    assert call() == "fallback"
    assert call() == "fallback"


def listeners_are_called_outside_the_lock(kit: Kit) -> None:
    breaker = kit.make(consecutive_failures=1)
    answered = threading.Event()

    def listen(_: BreakerEvent) -> None:
        def ask() -> None:
            breaker.snapshot()
            answered.set()

        threading.Thread(target=ask, daemon=True).start()
        assert_in_listener.append(answered.wait(kit.patience))

    assert_in_listener: list[bool] = []
    breaker.subscribe(listen)
    fail(breaker)
    assert assert_in_listener == [True]


def an_ignored_trial_does_not_stick(kit: Kit) -> None:
    breaker, _ = kit.half_open(ignore=CallError)
    acquire(breaker).record(CallError())
    succeed(breaker)
    assert breaker.state is CLOSED


def a_cancelled_trial_does_not_stick(kit: Kit) -> None:
    breaker, _ = kit.half_open()
    acquire(breaker).record(asyncio.CancelledError())
    succeed(breaker)
    assert breaker.state is CLOSED


def a_hung_trial_does_not_stick(kit: Kit) -> None:
    breaker, clock = kit.half_open(half_open_max_wait=5.0)
    acquire(breaker)
    clock.forward(5 + 20)
    succeed(breaker)
    assert breaker.state is CLOSED


def a_permit_counts_once(kit: Kit) -> None:
    breaker = kit.make()
    permit = acquire(breaker)
    for _ in range(5):
        permit.failure()
    assert breaker.snapshot().failures == 1


def a_refusal_says_when_to_try_again(kit: Kit) -> None:
    clock = Clock()
    breaker = kit.make(clock)
    fail(breaker, 3)
    clock.forward(4)
    with pytest.raises(DependencyUnavailable) as caught, kit.guard(name="x", breaker=breaker):
        pass
    assert caught.value.retry_after == 6.0


def a_probe_every_ten_seconds_is_heard_within_a_minute(kit: Kit) -> None:
    clock = Clock()
    breaker = kit.breaker(clock=clock)
    began = clock.now
    while breaker.state is CLOSED:
        clock.forward(10)
        assert clock.now - began < 60
        fail(breaker)


BEHAVIOURS: list[Callable[[Kit], None]] = [
    calls_through_a_closed_breaker_overlap,
    a_coroutine_function_that_fails_opens_it,
    the_exception_that_opened_it_is_raised_itself,
    an_interrupted_call_is_no_failure,
    a_cancelled_call_is_no_failure,
    a_cancelled_call_is_no_success,
    a_cancelled_trial_does_not_close_it,
    a_generator_closed_early_is_no_failure,
    a_generator_closed_early_is_no_success,
    an_exception_that_is_not_listed_is_no_success,
    only_the_trials_pass_of_a_crowd,
    the_wait_is_the_same_in_every_time_zone,
    a_step_of_the_wall_clock_changes_nothing,
    each_refusal_raises_a_new_exception,
    no_failure_is_lost_between_threads,
    a_late_success_closes_nothing,
    a_late_failure_opens_nothing,
    what_a_listener_raises_does_not_reach_the_caller,
    listeners_are_called_outside_the_lock,
    an_ignored_trial_does_not_stick,
    a_cancelled_trial_does_not_stick,
    a_hung_trial_does_not_stick,
    a_permit_counts_once,
    a_refusal_says_when_to_try_again,
    a_probe_every_ten_seconds_is_heard_within_a_minute,
]


# Mutants


class LockHeldThroughTheCall(Guard[Any]):
    def __call__(self, function: Any) -> Any:
        guarded: Any = super().__call__(function)
        lock = threading.Lock()

        def locked(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return guarded(*args, **kwargs)

        return locked


class CoroutinesUnheard(Guard[Any]):
    def __call__(self, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return call


class ExceptionReplaced(Guard[Any]):
    def __call__(self, function: Any) -> Any:
        guarded: Any = super().__call__(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return guarded(*args, **kwargs)
            except Exception as exc:
                raise DependencyUnavailable("x") from exc

        return call


def judging(outcome: Outcome, *kinds: type[BaseException]) -> type[CircuitBreaker]:
    """A breaker that takes exceptions of these kinds for `outcome`."""

    class Misjudge(Judge):
        def __call__(self, exception: BaseException | None, result: object) -> Outcome:
            if isinstance(exception, kinds):
                return outcome
            return super().__call__(exception, result)

    class Misjudging(CircuitBreaker):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._judge = Misjudge(
                is_failure=options.get("is_failure"), ignore=(), is_failure_result=None
            )

    return Misjudging


class Herd(CircuitBreaker):
    def _admit(self, now: float, draw: float, *, trial: bool) -> Permit | None:
        permit = super()._admit(now, draw, trial=trial)
        if permit is None and self._phase.state is HALF_OPEN:
            return Permit(self, self._phase, now)
        return permit


class NoLock(CircuitBreaker):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._lock = cast("Any", contextlib.nullcontext())

    def _admit(self, now: float, draw: float, *, trial: bool) -> Permit | None:
        if self._phase.state is HALF_OPEN and len(self._phase.trials) < 2:
            time.sleep(0.01)  # another thread gets its turn
            self._phase.trials[permit := Permit(self, self._phase, now)] = now
            return permit
        return super()._admit(now, draw, trial=trial)


class LosesUpdates(CircuitBreaker):
    def _settle(self, permit: Permit, outcome: Outcome) -> None:
        phase = permit._phase
        read = phase.failures
        time.sleep(1e-4)  # another thread gets its turn
        phase.failures = read + (outcome is Outcome.FAILURE)


class LocalTimeWithUTC(CircuitBreaker):
    def _open(self, phase: Phase, now: float, draw: float) -> None:
        super()._open(phase, now, draw)
        skew = datetime.now() - datetime.now(UTC).replace(tzinfo=None)  # noqa: DTZ005 - the defect
        self._phase.due += round(skew.total_seconds())


class WallClock(CircuitBreaker):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{"clock": lambda: time.time()} | options)  # noqa: PLW0108 - patched later


class OneExceptionForAll(Guard[Any]):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.error = DependencyUnavailable("x")

    def __call__(self, function: Any) -> Any:
        guarded: Any = super().__call__(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return guarded(*args, **kwargs)
            except DependencyUnavailable:
                raise self.error from None

        return call


class LateSuccessCloses(CircuitBreaker):
    def _take(self, permit: Permit, outcome: Outcome, now: float, draw: float) -> None:
        super()._take(permit, outcome, now, draw)
        if outcome is Outcome.SUCCESS and self._phase.state is OPEN:
            self._enter(self._new_phase(CLOSED), now)


class NoGenerations(CircuitBreaker):
    def _take(self, permit: Permit, outcome: Outcome, now: float, draw: float) -> None:
        permit._phase = self._phase
        super()._take(permit, outcome, now, draw)


class ListenersUnderTheLock(CircuitBreaker):
    def _enter(self, phase: Phase, now: float) -> None:
        super()._enter(phase, now)
        self._events.deliver()


class ListenersRaise(CircuitBreaker):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.heard: list[Callable[[BreakerEvent], object]] = []

    def subscribe(
        self, listener: Callable[[BreakerEvent], object], *, rejected: bool = True
    ) -> Callable[[], None]:
        self.heard.append(listener)
        return super().subscribe(listener, rejected=rejected)

    def _enter(self, phase: Phase, now: float) -> None:
        super()._enter(phase, now)
        for listener in self.heard:
            listener(self._events.waiting.popleft())


def keeping_trials_after(outcome: Outcome) -> type[CircuitBreaker]:
    """A breaker that does not take back the permit of a trial that ended so."""

    class Sticking(CircuitBreaker):
        def _take(self, permit: Permit, given: Outcome, now: float, draw: float) -> None:
            if given is not outcome:
                super()._take(permit, given, now, draw)

    return Sticking


class HungTrialsStick(CircuitBreaker):
    def _expire(self, now: float, draw: float) -> None:
        """Wait for them for ever."""


class CancelledTrialCloses(CircuitBreaker):
    def _take(self, permit: Permit, outcome: Outcome, now: float, draw: float) -> None:
        if outcome is Outcome.CANCELLED and self._phase.state is HALF_OPEN:
            outcome = Outcome.SUCCESS
        super()._take(permit, outcome, now, draw)


class PermitsCountTwice(CircuitBreaker):
    def _take(self, permit: Permit, outcome: Outcome, now: float, draw: float) -> None:
        super()._take(permit, outcome, now, draw)
        permit._outcome = None


class SilentRefusals(Guard[Any]):
    def __enter__(self) -> Any:
        try:
            return super().__enter__()
        except DependencyUnavailable:
            raise DependencyUnavailable("x") from None


class MadeForTrafficAlone(CircuitBreaker):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{"window_calls": 100, "minimum_calls": 100} | options)


CANCELLATIONS = (asyncio.CancelledError, trio.Cancelled)

# library: defect -> the mutant, and the behaviour that tells it from ours
MUTANTS: dict[str, tuple[Kit, Callable[[Kit], None]]] = {
    "pybreaker: a lock is held through the call": (
        Kit(guard=LockHeldThroughTheCall, patience=0.5),
        calls_through_a_closed_breaker_overlap,
    ),
    "pybreaker: a native coroutine function never trips it": (
        Kit(guard=CoroutinesUnheard),
        a_coroutine_function_that_fails_opens_it,
    ),
    "pybreaker: KeyboardInterrupt is a failure": (
        Kit(breaker=judging(Outcome.FAILURE, KeyboardInterrupt)),
        an_interrupted_call_is_no_failure,
    ),
    "pybreaker: an early close of a generator is a failure": (
        Kit(breaker=judging(Outcome.FAILURE, GeneratorExit)),
        a_generator_closed_early_is_no_failure,
    ),
    "pybreaker: the tripping exception is replaced": (
        Kit(guard=ExceptionReplaced),
        the_exception_that_opened_it_is_raised_itself,
    ),
    "aiobreaker, purgatory, circuitbreaker, hyx, asyncbreaker: a herd in half-open": (
        Kit(breaker=Herd),
        only_the_trials_pass_of_a_crowd,
    ),
    "aiobreaker: local time is compared with UTC": (
        Kit(breaker=LocalTimeWithUTC),
        the_wait_is_the_same_in_every_time_zone,
    ),
    "aiobreaker: the wall clock is asked": (
        Kit(breaker=WallClock),
        a_step_of_the_wall_clock_changes_nothing,
    ),
    "purgatory: cancellation is a failure": (
        Kit(breaker=judging(Outcome.FAILURE, *CANCELLATIONS)),
        a_cancelled_call_is_no_failure,
    ),
    "purgatory: one exception object for all refusals": (
        Kit(guard=OneExceptionForAll),
        each_refusal_raises_a_new_exception,
    ),
    "purgatory: the counter loses updates": (
        Kit(breaker=LosesUpdates),
        no_failure_is_lost_between_threads,
    ),
    "circuitbreaker, hyx, asyncbreaker: cancellation is a success": (
        Kit(breaker=judging(Outcome.SUCCESS, *CANCELLATIONS)),
        a_cancelled_call_is_no_success,
    ),
    "circuitbreaker: an early close of a generator is a success": (
        Kit(breaker=judging(Outcome.SUCCESS, GeneratorExit)),
        a_generator_closed_early_is_no_success,
    ),
    "circuitbreaker: an unlisted exception is a success": (
        Kit(breaker=judging(Outcome.SUCCESS, CallError)),
        an_exception_that_is_not_listed_is_no_success,
    ),
    "circuitbreaker: a late success closes an open circuit": (
        Kit(breaker=LateSuccessCloses),
        a_late_success_closes_nothing,
    ),
    "circuitbreaker: no generations, so late failures count": (
        Kit(breaker=NoGenerations),
        a_late_failure_opens_nothing,
    ),
    "circuitbreaker: no lock": (
        Kit(breaker=NoLock),
        only_the_trials_pass_of_a_crowd,
    ),
    "hyx, asyncbreaker: an error of the machinery raises out of the guarded call": (
        Kit(breaker=ListenersRaise),
        what_a_listener_raises_does_not_reach_the_caller,
    ),
    "pybreaker: listeners are called under the lock": (
        Kit(breaker=ListenersUnderTheLock, patience=0.5),
        listeners_are_called_outside_the_lock,
    ),
    "resilience4j (history): stuck in half-open after an ignored exception": (
        Kit(breaker=keeping_trials_after(Outcome.IGNORED)),
        an_ignored_trial_does_not_stick,
    ),
    "resilience4j (history): stuck in half-open after a cancelled trial": (
        Kit(breaker=keeping_trials_after(Outcome.CANCELLED)),
        a_cancelled_trial_does_not_stick,
    ),
    "resilience4j (history): stuck in half-open after a hung trial": (
        Kit(breaker=HungTrialsStick),
        a_hung_trial_does_not_stick,
    ),
    "resilience4j: the defaults are for traffic, and a probe is not heard for 17 minutes": (
        Kit(breaker=MadeForTrafficAlone),
        a_probe_every_ten_seconds_is_heard_within_a_minute,
    ),
    "Polly: a cancelled trial closes the circuit": (
        Kit(breaker=CancelledTrialCloses),
        a_cancelled_trial_does_not_close_it,
    ),
    "any: one call is counted twice": (
        Kit(breaker=PermitsCountTwice),
        a_permit_counts_once,
    ),
    "any: a refusal does not say when to try again": (
        Kit(guard=SilentRefusals),
        a_refusal_says_when_to_try_again,
    ),
}


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
def test_ours_behaves(behaviour: Callable[[Kit], None]) -> None:
    behaviour(Kit())


@pytest.mark.parametrize("defect", MUTANTS)
def test_a_breaker_with_this_defect_is_found_out(defect: str) -> None:
    mutant, behaviour = MUTANTS[defect]
    with pytest.raises((AssertionError, ConnectionError, threading.BrokenBarrierError)):
        behaviour(mutant)


def test_every_behaviour_finds_a_mutant() -> None:
    assert {behaviour for _, behaviour in MUTANTS.values()} == set(BEHAVIOURS)
