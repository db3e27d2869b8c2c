from __future__ import annotations

import asyncio
import functools
import gc
import logging
import math
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

from healthmw import CircuitBreaker
from healthmw._breaker_state import BreakerEvent, BreakerState, Outcome
from healthmw._window import TimeWindow
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
    never_jitter,
    succeed,
)
from tests.broken_log import broken_log

if TYPE_CHECKING:
    from healthmw._breaker import Permit


@pytest.fixture
def clock() -> Clock:
    return Clock()


# Opening by so many failures in a row


def test_opens_after_so_many_failures_in_a_row(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 2)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN
    assert breaker.try_acquire() is None


def test_five_failures_in_a_row_open_it_by_default() -> None:
    breaker = CircuitBreaker()
    fail(breaker, 4)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_a_success_starts_the_row_anew(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 2)
    succeed(breaker)
    fail(breaker, 2)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_a_probe_every_ten_seconds_is_heard_within_a_minute(clock: Clock) -> None:
    breaker = CircuitBreaker(clock=clock)
    began = clock.now
    while breaker.state is CLOSED:
        clock.forward(10)
        assert clock.now - began < 60
        fail(breaker)


@pytest.mark.parametrize("outcome", ["ignored", "cancelled"])
def test_what_is_not_recorded_neither_adds_to_the_row_nor_ends_it(
    clock: Clock, outcome: str
) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 2)
    for _ in range(10):
        getattr(acquire(breaker), outcome)()
    assert breaker.snapshot().consecutive_failures == 2
    fail(breaker)
    assert breaker.state is OPEN


# Opening by a window


def test_a_window_of_calls_opens_at_the_rate_and_not_before_its_minimum(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=10, minimum_calls=4, failure_rate=0.5)
    fail(breaker, 3)
    assert breaker.state is CLOSED
    succeed(breaker)
    assert breaker.state is OPEN  # 3 of 4; that the last went well does not change the rate


def test_a_window_of_calls_forgets_the_oldest(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=4, failure_rate=0.75)
    fail(breaker, 2)
    succeed(breaker, 4)
    fail(breaker, 2)
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.failures, snapshot.state) == (4, 2, CLOSED)
    fail(breaker)
    assert breaker.state is OPEN


def test_a_rate_that_is_met_exactly_opens_whatever_binary_fractions_do(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=30, minimum_calls=30, failure_rate=0.1)
    succeed(breaker, 27)
    fail(breaker, 3)  # and 0.1 * 30 is more than 3
    assert breaker.state is OPEN


def test_a_window_of_seconds_forgets_what_is_older(clock: Clock) -> None:
    breaker = make_breaker(clock, window_seconds=10, minimum_calls=4, failure_rate=1.0)
    fail(breaker, 3)
    clock.forward(8)
    assert breaker.snapshot().failures == 3
    clock.forward(2)
    assert breaker.snapshot().calls == 0
    fail(breaker, 3)
    assert breaker.state is CLOSED
    clock.forward(8)
    fail(breaker)
    assert breaker.state is OPEN


def test_a_window_of_seconds_lets_go_tenth_by_tenth(clock: Clock) -> None:
    breaker = make_breaker(clock, window_seconds=10, minimum_calls=100)
    for _ in range(10):
        fail(breaker)
        succeed(breaker)
        clock.forward(1)
    assert breaker.snapshot().calls == 18  # those of the first second are ten seconds old
    clock.forward(5)
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.failures, snapshot.successes) == (8, 4, 4)


def test_what_comes_late_in_a_tenth_leaves_with_the_others_of_it(clock: Clock) -> None:
    breaker = make_breaker(clock, window_seconds=10, minimum_calls=100)
    clock.forward(0.95)
    fail(breaker)
    clock.forward(9)
    assert breaker.snapshot().calls == 1
    clock.forward(0.1)
    assert breaker.snapshot().calls == 0


def test_a_window_of_seconds_takes_results_that_come_in_the_wrong_order(clock: Clock) -> None:
    # Two threads may read the clock in one order and get the lock in the other.
    breaker = make_breaker(clock, window_seconds=10, minimum_calls=100)
    clock.forward(5)
    fail(breaker)
    clock.forward(-2)
    fail(breaker)
    clock.forward(2)
    assert breaker.snapshot().failures == 2
    clock.forward(10)
    assert breaker.snapshot().calls == 0


def test_a_window_of_seconds_does_not_grow_with_the_traffic(clock: Clock) -> None:
    window = TimeWindow(10)
    for _ in range(10_000):
        window.add(clock.now, failed=False, slow=False)
        clock.forward(0.01)
    assert window.calls == pytest.approx(1000, rel=0.1)
    assert len(window._buckets) <= 11  # its size in memory shows nowhere else


def test_slow_calls_leave_a_window_of_seconds_like_any_other(clock: Clock) -> None:
    breaker = make_breaker(clock, window_seconds=100, minimum_calls=3, slow_call_duration=10.0)
    for _ in range(2):
        permit = acquire(breaker)
        clock.forward(10)
        permit.success()
    assert breaker.snapshot().slow == 2
    clock.forward(100)
    assert breaker.snapshot().slow == 0


def test_slow_calls_open_it_at_their_rate(clock: Clock) -> None:
    breaker = make_breaker(
        clock, window_calls=4, failure_rate=1.0, slow_call_duration=2.0, slow_call_rate=0.5
    )
    for seconds in (1.9, 2.0, 0.1, 5.0):
        assert breaker.state is CLOSED
        permit = acquire(breaker)
        clock.forward(seconds)
        permit.success()
    assert breaker.state is OPEN
    snapshot = breaker.snapshot()
    assert (snapshot.slow, snapshot.failures, snapshot.slow_call_rate) == (2, 0, 0.5)


def test_slow_calls_leave_the_window_like_any_other(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=4, slow_call_duration=1.0, slow_call_rate=0.75)
    for seconds in (1, 1, 0, 0, 0, 0, 1, 1):
        permit = acquire(breaker)
        clock.forward(seconds)
        permit.success()
    assert breaker.state is CLOSED
    assert breaker.snapshot().slow == 2


def test_without_a_duration_no_call_is_slow(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=2, minimum_calls=2)
    for _ in range(4):
        permit = acquire(breaker)
        clock.forward(1e6)
        permit.success()
    assert breaker.state is CLOSED
    assert breaker.snapshot().slow == 0


def test_a_row_and_a_window_together_open_by_whichever_comes_first(clock: Clock) -> None:
    def both() -> CircuitBreaker:
        return make_breaker(
            clock, consecutive_failures=3, window_calls=10, minimum_calls=6, failure_rate=0.5
        )

    by_row = both()
    fail(by_row, 3)
    assert by_row.state is OPEN
    by_window = both()
    for _ in range(3):
        succeed(by_window)
        assert by_window.state is CLOSED
        fail(by_window)
    assert by_window.state is OPEN


def test_a_window_alone_bears_any_number_of_failures_in_a_row(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=20, failure_rate=0.5)
    succeed(breaker, 8)
    fail(breaker, 7)
    assert breaker.state is CLOSED


# Trials


def test_when_the_wait_is_over_a_trial_decides(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 3)
    clock.forward(9.9)
    assert breaker.try_acquire() is None
    clock.forward(0.1)
    assert breaker.state is OPEN  # a trial is due, and nobody has made it yet
    permit = acquire(breaker)
    assert breaker.state is HALF_OPEN
    assert breaker.try_acquire() is None
    permit.success()
    assert breaker.state is CLOSED
    assert breaker.snapshot().consecutive_failures == 0


def test_a_failed_trial_opens_it_again_for_longer_each_time_up_to_the_cap(clock: Clock) -> None:
    breaker = make_breaker(clock, open_for=10.0, backoff=3.0, open_for_max=100.0)
    fail(breaker, 3)
    waits = []
    for _ in range(5):
        wait = breaker.retry_after
        assert wait is not None
        waits.append(wait)
        clock.forward(wait)
        fail(breaker)
    assert waits == [10.0, 30.0, 90.0, 100.0, 100.0]


def test_once_closed_the_next_wait_is_the_first_one_again(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 3)
    clock.forward(10)
    fail(breaker)
    clock.forward(20)
    succeed(breaker)
    fail(breaker, 3)
    assert breaker.retry_after == 10.0


def test_thousands_of_failed_trials_do_not_overflow_the_backoff(clock: Clock) -> None:
    breaker = make_breaker(clock, backoff=1000.0)
    fail(breaker, 3)
    for _ in range(2000):
        clock.forward(30)
        fail(breaker)
    assert breaker.retry_after == 30.0


@pytest.mark.parametrize(
    ("jitter", "drawn", "wait"),
    [(0.0, 0.9, 10.0), (0.25, 0.0, 10.0), (0.25, 0.8, 8.0), (1, 0.5, 5.0)],
)
def test_jitter_shortens_the_wait_by_the_share_that_was_drawn(
    clock: Clock, jitter: float, drawn: float, wait: float
) -> None:
    breaker = make_breaker(clock, jitter=jitter, random=lambda: drawn)
    fail(breaker, 3)
    assert breaker.retry_after == pytest.approx(wait)


def test_jitter_is_drawn_anew_for_every_wait_and_does_not_add_up(clock: Clock) -> None:
    drawn = [0.0]
    breaker = make_breaker(clock, jitter=0.5, random=lambda: drawn[0], backoff=1.0)
    fail(breaker, 3)
    waits = []
    for drawn[0] in (1.0, 1.0, 0.5, 0.0):
        clock.forward(10)
        fail(breaker)
        waits.append(breaker.retry_after)
    assert waits == [5.0, 5.0, 7.5, 10.0]


def test_callers_that_may_not_make_the_trial_are_refused_until_it_went_well(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 3)
    clock.forward(1000)
    assert breaker.try_acquire(trial=False) is None
    assert breaker.state is OPEN
    assert breaker.retry_after == 0.0
    trial = acquire(breaker)
    assert breaker.try_acquire(trial=False) is None
    trial.success()
    acquire(breaker, trial=False).success()


def test_so_many_trials_at_once_and_all_must_go_well(clock: Clock) -> None:
    breaker = make_breaker(clock, half_open_calls=3)
    fail(breaker, 3)
    clock.forward(10)
    trials = [acquire(breaker) for _ in range(3)]
    assert breaker.try_acquire() is None
    trials[0].success()
    assert breaker.try_acquire() is None  # three decide, and that one of them is back gives no room
    trials[2].success()
    assert breaker.state is HALF_OPEN
    trials[1].success()
    assert breaker.state is CLOSED


def test_one_failed_trial_of_many_is_enough(clock: Clock) -> None:
    breaker = make_breaker(clock, half_open_calls=3)
    fail(breaker, 3)
    clock.forward(10)
    trials = [acquire(breaker) for _ in range(3)]
    trials[0].success()
    trials[1].failure()
    assert breaker.state is OPEN
    trials[2].success()
    assert breaker.state is OPEN


@pytest.mark.parametrize(("failures", "state"), [(2, CLOSED), (3, OPEN)])
def test_with_a_window_the_trials_are_judged_by_its_rate(
    clock: Clock, failures: int, state: BreakerState
) -> None:
    breaker = make_breaker(clock, window_calls=2, failure_rate=0.5, half_open_calls=5)
    fail(breaker, 2)
    clock.forward(10)
    trials = [acquire(breaker) for _ in range(5)]
    for trial in trials[:failures]:
        trial.failure()
    for trial in trials[failures:]:
        trial.success()
    assert breaker.state is state


def test_slow_trials_open_it_again(clock: Clock) -> None:
    breaker = make_breaker(
        clock, window_calls=2, slow_call_duration=1.0, slow_call_rate=1.0, half_open_calls=2
    )
    fail(breaker, 2)
    clock.forward(10)
    trials = [acquire(breaker), acquire(breaker)]
    clock.forward(2)
    trials[0].success()
    assert breaker.state is HALF_OPEN
    trials[1].success()
    assert breaker.state is OPEN


@pytest.mark.parametrize("outcome", ["ignored", "cancelled"])
def test_a_trial_that_tells_nothing_makes_room_for_another(clock: Clock, outcome: str) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 3)
    clock.forward(10)
    for _ in range(5):
        getattr(acquire(breaker), outcome)()
        assert breaker.state is HALF_OPEN
        assert breaker.retry_after == 0.0
    succeed(breaker)
    assert breaker.state is CLOSED


def test_a_hung_trial_has_failed_after_the_longest_wait(clock: Clock) -> None:
    breaker = make_breaker(clock, half_open_max_wait=7.0)
    fail(breaker, 3)
    clock.forward(10)
    trial = acquire(breaker)
    clock.forward(6)
    assert breaker.state is HALF_OPEN
    clock.forward(2)
    assert breaker.state is OPEN
    assert breaker.retry_after == 19.0  # 20 s from when the trial was overdue, which is 1 s ago
    trial.success()
    assert breaker.state is OPEN
    assert breaker.snapshot().consecutive_failures == 4


def test_a_hung_trial_is_found_out_by_the_next_caller_too(clock: Clock) -> None:
    breaker = make_breaker(clock, half_open_max_wait=7.0)
    fail(breaker, 3)
    clock.forward(10)
    hung = acquire(breaker)
    clock.forward(7 + 20)
    succeed(breaker)
    assert breaker.state is CLOSED
    hung.failure()
    assert breaker.snapshot().failures == 0


def test_a_trial_that_comes_back_too_late_has_failed_even_if_nobody_looked(clock: Clock) -> None:
    breaker = make_breaker(clock, half_open_max_wait=7.0)
    fail(breaker, 3)
    clock.forward(10)
    trial = acquire(breaker)
    clock.forward(7)
    trial.success()
    assert breaker.state is OPEN


def test_with_a_window_a_hung_trial_is_one_failed_trial_of_many(clock: Clock) -> None:
    breaker = make_breaker(
        clock, window_calls=2, failure_rate=0.6, half_open_calls=3, half_open_max_wait=7.0
    )
    fail(breaker, 2)
    clock.forward(10)
    hung = acquire(breaker)
    clock.forward(7)
    assert breaker.state is HALF_OPEN
    hung.success()  # it was counted as failed already
    assert breaker.snapshot().failures == 1
    succeed(breaker)
    assert breaker.state is HALF_OPEN
    succeed(breaker)
    assert breaker.state is CLOSED


def test_a_trial_that_was_dropped_does_not_stick(clock: Clock) -> None:
    breaker = make_breaker(clock, half_open_max_wait=7.0)
    fail(breaker, 3)
    clock.forward(10)
    acquire(breaker)
    gc.collect()
    clock.forward(7 + 20)
    succeed(breaker)
    assert breaker.state is CLOSED


def test_a_breaker_that_closes_at_that_moment_lets_the_caller_pass(clock: Clock) -> None:
    resets = [False]

    def meanwhile() -> float:
        if resets[0]:
            resets[0] = False
            breaker.reset()
        return clock.now

    breaker = CircuitBreaker(consecutive_failures=1, clock=meanwhile)
    fail(breaker)
    clock.forward(10)
    resets[0] = True
    acquire(breaker).success()
    assert breaker.state is CLOSED
    assert breaker.snapshot().rejected == 0


# Late results


def test_a_late_success_closes_nothing(clock: Clock) -> None:
    breaker = make_breaker(clock)
    late = [acquire(breaker), acquire(breaker)]
    fail(breaker, 3)
    late[0].success()
    assert breaker.state is OPEN
    clock.forward(10)
    acquire(breaker)
    late[1].success()
    assert breaker.state is HALF_OPEN


def test_results_of_an_earlier_stretch_change_nothing(clock: Clock) -> None:
    breaker = make_breaker(clock)
    late = [acquire(breaker) for _ in range(20)]
    fail(breaker, 3)
    clock.forward(10)
    trial = acquire(breaker)
    for permit in late[:5]:
        permit.failure()
    assert breaker.state is HALF_OPEN
    trial.success()
    for permit in late[5:15]:
        permit.failure()
    assert breaker.state is CLOSED
    fail(breaker, 2)
    for permit in late[15:]:
        permit.success()
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.consecutive_failures, snapshot.calls) == (CLOSED, 2, 2)


def test_a_reset_makes_calls_under_way_late(clock: Clock) -> None:
    breaker = make_breaker(clock)
    late = [acquire(breaker) for _ in range(3)]
    breaker.reset()
    for permit in late:
        permit.failure()
    assert breaker.state is CLOSED
    assert breaker.snapshot().failures == 0


# Permits


@pytest.mark.parametrize("second", ["success", "failure", "ignored", "cancelled"])
@pytest.mark.parametrize("first", ["success", "failure", "ignored", "cancelled"])
def test_a_permit_is_answered_once(clock: Clock, first: str, second: str) -> None:
    breaker, alike = make_breaker(clock), make_breaker(clock)
    permit = acquire(breaker)
    getattr(permit, first)()
    getattr(permit, second)()
    getattr(acquire(alike), first)()
    assert breaker.snapshot() == alike.snapshot()


def test_a_trial_is_answered_once(clock: Clock) -> None:
    breaker = make_breaker(clock, half_open_calls=2)
    fail(breaker, 3)
    clock.forward(10)
    trial = acquire(breaker)
    for _ in range(5):
        trial.success()
    assert breaker.state is HALF_OPEN


@pytest.mark.parametrize(
    ("exception", "outcome"),
    [
        (None, Outcome.SUCCESS),
        (ValueError(), Outcome.FAILURE),
        (TimeoutError(), Outcome.FAILURE),
        (ExceptionGroup("several", [ValueError()]), Outcome.FAILURE),
        (asyncio.CancelledError(), Outcome.CANCELLED),
        (GeneratorExit(), Outcome.CANCELLED),
        (KeyboardInterrupt(), Outcome.CANCELLED),
        (SystemExit(), Outcome.CANCELLED),
        (BaseExceptionGroup("mixed", [KeyboardInterrupt(), ValueError()]), Outcome.CANCELLED),
    ],
    ids=repr,
)
def test_how_a_call_ended(exception: BaseException | None, outcome: Outcome) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    assert acquire(breaker).record(exception) is outcome
    snapshot = breaker.snapshot()
    assert snapshot.total_successes == (outcome is Outcome.SUCCESS)
    assert snapshot.total_failures == (outcome is Outcome.FAILURE)


def test_trio_cancellation_is_not_recorded() -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    outcomes: list[Outcome] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            permit = acquire(breaker)
            try:
                await trio.sleep_forever()
            except BaseException as exc:
                outcomes.append(permit.record(exc))
                raise

    trio.run(main)
    assert outcomes == [Outcome.CANCELLED]
    assert breaker.snapshot().calls == 0


def test_ignored_exceptions_and_their_subclasses_are_not_recorded() -> None:
    breaker = CircuitBreaker(consecutive_failures=1, ignore=(LookupError, PermissionError))
    assert acquire(breaker).record(KeyError()) is Outcome.IGNORED
    assert acquire(breaker).record(PermissionError()) is Outcome.IGNORED
    assert breaker.snapshot().calls == 0
    assert acquire(breaker).record(OSError()) is Outcome.FAILURE
    assert breaker.state is OPEN
    assert acquire(CircuitBreaker(ignore=KeyError)).record(KeyError()) is Outcome.IGNORED


def test_what_is_no_failure_to_the_predicate_is_neither_failure_nor_success() -> None:
    breaker = CircuitBreaker(
        consecutive_failures=2, is_failure=lambda exc: isinstance(exc, OSError)
    )
    assert acquire(breaker).record(ConnectionError()) is Outcome.FAILURE
    assert acquire(breaker).record(ValueError()) is Outcome.IGNORED
    assert breaker.snapshot().consecutive_failures == 1
    assert acquire(breaker).record(ConnectionError()) is Outcome.FAILURE
    assert breaker.state is OPEN


def test_a_result_can_be_a_failure() -> None:
    breaker = CircuitBreaker(consecutive_failures=2, is_failure_result=lambda code: code >= 500)
    assert acquire(breaker).record(None, 200) is Outcome.SUCCESS
    assert acquire(breaker).record(None, 503) is Outcome.FAILURE
    assert acquire(breaker).success(500) is Outcome.FAILURE
    assert breaker.state is OPEN


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        ([KeyError()], Outcome.IGNORED),
        ([KeyError(), ExceptionGroup("", [KeyError(), IndexError()])], Outcome.IGNORED),
        ([KeyError(), OSError()], Outcome.FAILURE),
        ([ExceptionGroup("", [OSError()])], Outcome.FAILURE),
    ],
    ids=str,
)
def test_a_group_of_nothing_but_ignored_exceptions_is_ignored_too(
    raised: list[Exception], outcome: Outcome
) -> None:
    breaker = CircuitBreaker(ignore=LookupError)
    assert acquire(breaker).record(ExceptionGroup("of a task group", raised)) is outcome


def test_our_own_timeout_is_a_failure_whatever_is_ignored() -> None:
    breaker = CircuitBreaker(consecutive_failures=1, ignore=Exception, is_failure=lambda _: False)
    acquire(breaker).failure()
    assert breaker.state is OPEN


@pytest.mark.parametrize("option", ["is_failure", "is_failure_result"])
def test_a_predicate_that_raises_is_logged_and_the_call_failed(
    option: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> bool:
        raise ZeroDivisionError("in the predicate")

    predicate: dict[str, Any] = {option: broken}
    breaker = CircuitBreaker(consecutive_failures=1, **predicate)
    exception = ValueError() if option == "is_failure" else None
    assert acquire(breaker).record(exception, 3) is Outcome.FAILURE
    assert breaker.state is OPEN
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("healthmw", logging.ERROR)
    assert "in the predicate" in caplog.text


def test_what_a_predicate_was_asked_of_is_logged_without_its_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(exc: Any) -> bool:
        return bool(exc.code >= 500)

    breaker = CircuitBreaker(is_failure=broken)
    try:
        raise ConnectionError("can't reach postgresql://shop:hunter2@db/shop")
    except ConnectionError as exc:
        acquire(breaker).record(exc)
    assert "'ConnectionError' object has no attribute 'code'" in caplog.text
    assert "postgresql://shop:***@db/shop" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_predicate_is_logged_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    class Judge:
        def __repr__(self) -> str:
            return "Judge('hunter2')"

        def __call__(self, _: object) -> bool:
            raise ZeroDivisionError

    acquire(CircuitBreaker(is_failure=Judge())).record(ValueError())
    assert "Judge raised, so the call counts as a failure" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_predicate_that_is_interrupted_gives_the_trial_back(clock: Clock) -> None:
    def interrupted(_: object) -> bool:
        raise KeyboardInterrupt

    breaker = make_breaker(clock, is_failure=interrupted)
    fail(breaker, 3)
    clock.forward(10)
    trial = acquire(breaker)
    with pytest.raises(KeyboardInterrupt):
        trial.record(ValueError())
    succeed(breaker)
    assert breaker.state is CLOSED


def test_predicates_run_outside_the_lock(clock: Clock) -> None:
    # Another thread gets its answers while this one's predicate is thinking.
    thinking, done = threading.Event(), threading.Event()

    def think(_: object) -> bool:
        thinking.set()
        return done.wait(PATIENCE)

    breaker = make_breaker(clock, is_failure=think)
    fail(breaker, 3)
    clock.forward(10)
    trial = acquire(breaker)
    thread = threading.Thread(target=trial.record, args=(ValueError(),), daemon=True)
    thread.start()
    assert thinking.wait(PATIENCE)
    assert breaker.try_acquire() is None
    assert breaker.snapshot().state is HALF_OPEN
    done.set()
    thread.join(PATIENCE)
    assert breaker.state is OPEN


@pytest.mark.parametrize("option", ["clock", "random"])
def test_clock_and_randomness_are_asked_outside_the_lock(option: str) -> None:
    busy, freed = threading.Event(), threading.Event()
    hang = [False]

    def hanging() -> float:
        if hang[0]:
            hang[0] = False
            busy.set()
            freed.wait(PATIENCE)
        return 0.5

    own: dict[str, Any] = {option: hanging}
    breaker = CircuitBreaker(consecutive_failures=1, **own)
    permit = acquire(breaker)
    hang[0] = True
    thread = threading.Thread(target=permit.failure, daemon=True)
    thread.start()
    assert busy.wait(PATIENCE)
    assert breaker.snapshot().state is CLOSED
    freed.set()
    thread.join(PATIENCE)
    assert breaker.state is OPEN


# Overruling


def test_forced_open_refuses_all_until_reset(clock: Clock) -> None:
    breaker = make_breaker(clock)
    breaker.force_open()
    clock.forward(1e9)
    assert breaker.try_acquire() is None
    assert breaker.try_acquire(trial=False) is None
    assert breaker.state is BreakerState.FORCED_OPEN
    assert breaker.retry_after is None
    assert not breaker.available
    breaker.reset()
    assert breaker.state is CLOSED
    succeed(breaker)


def test_disabled_lets_all_pass_and_counts_nothing(clock: Clock) -> None:
    breaker = make_breaker(clock)
    breaker.disable()
    fail(breaker, 10)
    succeed(breaker, 10)
    snapshot = breaker.snapshot()
    assert snapshot.state is BreakerState.DISABLED
    assert (snapshot.calls, snapshot.total_successes, snapshot.total_failures) == (0, 0, 0)
    assert breaker.available


@pytest.mark.parametrize("options", [{}, {"window_calls": 10}], ids=["row", "window"])
def test_metrics_only_counts_and_never_opens(clock: Clock, options: dict[str, Any]) -> None:
    breaker = make_breaker(clock, **options)
    breaker.metrics_only()
    succeed(breaker)
    fail(breaker, 9)
    snapshot = breaker.snapshot()
    assert snapshot.state is BreakerState.METRICS_ONLY
    assert (snapshot.calls, snapshot.failures, snapshot.failure_rate) == (10, 9, 0.9)
    assert snapshot.consecutive_failures == 9
    assert breaker.available


def test_metrics_only_goes_by_the_window(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=4)
    breaker.metrics_only()
    succeed(breaker, 5)
    fail(breaker, 2)
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.failures) == (4, 2)


def test_reset_forgets_the_row_and_the_backoff(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 3)
    clock.forward(10)
    fail(breaker)
    assert breaker.retry_after == 20.0
    breaker.reset()
    fail(breaker, 2)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.retry_after == 10.0


def test_overruling_a_trial_makes_it_late(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 3)
    clock.forward(10)
    trial = acquire(breaker)
    breaker.force_open()
    trial.success()
    clock.forward(1e9)
    assert breaker.state is BreakerState.FORCED_OPEN


# Looking


def test_snapshot_of_a_closed_breaker(clock: Clock) -> None:
    breaker = make_breaker(clock)
    succeed(breaker, 6)
    fail(breaker, 2)
    snapshot = breaker.snapshot()
    assert snapshot.state is CLOSED
    assert (snapshot.calls, snapshot.successes, snapshot.failures) == (8, 6, 2)
    assert snapshot.failure_rate == 0.25
    assert snapshot.consecutive_failures == 2
    assert snapshot.retry_after is None
    assert (snapshot.rejected, snapshot.opened_count) == (0, 0)
    assert breaker.snapshot() == snapshot  # to look changes nothing


def test_snapshot_before_any_call(clock: Clock) -> None:
    snapshot = make_breaker(clock).snapshot()
    assert snapshot.calls == 0
    assert snapshot.failure_rate is None
    assert snapshot.slow_call_rate is None


def test_snapshot_of_an_open_breaker_tells_what_opened_it(clock: Clock) -> None:
    breaker = make_breaker(clock, window_seconds=10, minimum_calls=4)
    succeed(breaker, 2)
    fail(breaker, 2)
    for _ in range(7):
        assert breaker.try_acquire() is None
    clock.forward(4)
    snapshot = breaker.snapshot()
    assert snapshot.state is OPEN
    assert (snapshot.calls, snapshot.failures, snapshot.failure_rate) == (4, 2, 0.5)
    assert snapshot.retry_after == 6.0
    assert (snapshot.rejected, snapshot.opened_count) == (7, 1)
    clock.forward(60)
    assert breaker.snapshot().failures == 2
    assert breaker.snapshot().retry_after == 0.0


def test_totals_only_ever_go_up(clock: Clock) -> None:
    breaker = make_breaker(clock)
    succeed(breaker, 4)
    fail(breaker, 3)
    clock.forward(10)
    fail(breaker)
    clock.forward(20)
    succeed(breaker)
    breaker.reset()
    succeed(breaker)
    snapshot = breaker.snapshot()
    assert (snapshot.total_successes, snapshot.total_failures) == (6, 4)
    assert (snapshot.successes, snapshot.failures, snapshot.opened_count) == (1, 0, 2)


def test_available_is_false_while_calls_are_refused(clock: Clock) -> None:
    breaker = make_breaker(clock)
    assert breaker.available
    fail(breaker, 3)
    assert not breaker.available
    clock.forward(10)
    trial = acquire(breaker)
    assert not breaker.available
    trial.success()
    assert breaker.available


def test_repr_shows_the_state(clock: Clock) -> None:
    breaker = make_breaker(clock)
    assert repr(breaker) == "<CircuitBreaker closed>"
    fail(breaker, 3)
    assert repr(breaker) == "<CircuitBreaker open>"


# Events


def test_events_tell_each_change_and_each_refusal_in_order(clock: Clock) -> None:
    breaker = make_breaker(clock)
    events: list[BreakerEvent] = []
    breaker.subscribe(events.append)
    fail(breaker, 3)
    clock.forward(4)
    breaker.try_acquire()
    clock.forward(6)
    trial = acquire(breaker)
    breaker.try_acquire(trial=False)
    trial.success()
    breaker.reset()
    breaker.force_open()
    assert [(e.kind, e.old, e.new, e.at - 1000, e.retry_after) for e in events] == [
        ("state_changed", CLOSED, OPEN, 0, 10.0),
        ("rejected", OPEN, OPEN, 4, 6.0),
        ("state_changed", OPEN, HALF_OPEN, 10, 0.0),
        ("rejected", HALF_OPEN, HALF_OPEN, 10, 0.0),
        ("state_changed", HALF_OPEN, CLOSED, 10, None),
        ("state_changed", CLOSED, BreakerState.FORCED_OPEN, 10, None),
    ]


def test_an_overdue_trial_is_told_with_the_time_when_it_was(clock: Clock) -> None:
    breaker = make_breaker(clock, half_open_max_wait=7.0)
    events: list[BreakerEvent] = []
    fail(breaker, 3)
    clock.forward(10)
    acquire(breaker)
    breaker.subscribe(events.append)
    clock.forward(100)
    assert breaker.state is OPEN
    (event,) = events
    assert (event.old, event.new, event.at) == (HALF_OPEN, OPEN, 1017.0)


def test_a_listener_may_leave_refusals_out(clock: Clock) -> None:
    breaker = make_breaker(clock)
    changes: list[BreakerEvent] = []
    everything: list[BreakerEvent] = []
    breaker.subscribe(changes.append, rejected=False)
    fail(breaker, 3)
    breaker.try_acquire()
    breaker.subscribe(everything.append)
    breaker.try_acquire()
    clock.forward(10)
    acquire(breaker)
    breaker.try_acquire()
    assert [event.kind for event in changes] == ["state_changed", "state_changed"]
    assert [event.kind for event in everything] == ["rejected", "state_changed", "rejected"]
    assert breaker.snapshot().rejected == 3


def test_a_refusal_by_a_trial_under_way_is_counted_when_nobody_listens(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 3)
    clock.forward(10)
    acquire(breaker)
    assert breaker.try_acquire() is None
    assert breaker.snapshot().rejected == 1


def test_unsubscribe_ends_one_subscription_and_may_be_called_twice(clock: Clock) -> None:
    breaker = make_breaker(clock)
    heard: list[str] = []
    first = breaker.subscribe(lambda _: heard.append("first"))
    second = breaker.subscribe(lambda _: heard.append("second"))
    first()
    first()
    fail(breaker, 3)
    assert heard == ["second"]
    second()
    breaker.reset()
    assert heard == ["second"]


def test_a_listener_that_raises_is_logged_and_hurts_nobody(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: BreakerEvent) -> None:
        raise ZeroDivisionError("in the listener")

    breaker = make_breaker(clock)
    events: list[BreakerEvent] = []
    breaker.subscribe(broken)
    breaker.subscribe(events.append)
    fail(breaker, 3)
    assert breaker.state is OPEN
    assert len(events) == 1
    assert [record.name for record in caplog.records] == ["healthmw"]
    assert "in the listener" in caplog.text


def test_what_a_listener_raises_is_logged_without_its_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: BreakerEvent) -> None:
        raise ZeroDivisionError("redis://:hunter3@cache")

    breaker = CircuitBreaker(consecutive_failures=1)
    breaker.subscribe(broken)
    try:
        raise ConnectionError("can't reach postgresql://shop:hunter2@db/shop")
    except ConnectionError as exc:
        acquire(breaker).record(exc)
    assert "redis://:***@cache" in caplog.text
    assert "hunter" not in caplog.text


def test_a_log_that_breaks_down_over_a_listener_hurts_nobody(
    clock: Clock, breakdowns: list[BaseException]
) -> None:
    def broken(_: BreakerEvent) -> None:
        raise ValueError("in the listener")

    breaker = make_breaker(clock)
    events: list[BreakerEvent] = []
    breaker.subscribe(broken)
    breaker.subscribe(events.append)
    with broken_log():
        fail(breaker, 3)
    assert (breaker.state, len(events)) == (OPEN, 1)
    assert [type(told) for told in breakdowns] == [ZeroDivisionError]
    breakdowns.clear()


@pytest.mark.parametrize("look", ["state", "retry_after", "snapshot"])
def test_who_looks_tells_the_listeners_of_a_trial_that_is_overdue(clock: Clock, look: str) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 3)
    clock.now += 1000
    acquire(breaker)
    events: list[BreakerEvent] = []
    breaker.subscribe(events.append)
    clock.now += 1000
    seen = getattr(breaker, look)
    if callable(seen):
        seen()
    assert [(event.old, event.new) for event in events] == [(HALF_OPEN, OPEN)]


def test_in_a_child_nobody_is_at_a_trial(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 3)
    clock.now += 1000
    acquire(breaker)
    assert breaker.try_acquire() is None
    breaker._after_fork()  # what a fork calls in the child
    assert breaker.try_acquire() is not None


def test_a_listener_that_is_interrupted_leaves_the_rest_for_the_next_event(clock: Clock) -> None:
    breaker = make_breaker(clock)
    told: list[BreakerEvent] = []

    def interrupted_once(event: BreakerEvent) -> None:
        told.append(event)
        if len(told) == 1:
            breaker.reset()
            raise KeyboardInterrupt

    breaker.subscribe(interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        fail(breaker, 3)
    breaker.force_open()
    assert [event.new for event in told] == [OPEN, CLOSED, BreakerState.FORCED_OPEN]


def test_a_listener_may_use_the_breaker_and_hears_what_it_did_after(clock: Clock) -> None:
    breaker = make_breaker(clock)
    told: list[str] = []

    def reopen(event: BreakerEvent) -> None:
        told.append(f"begin {event.new}")
        if event.new is OPEN:
            breaker.reset()
        told.append(f"end {event.new}")

    breaker.subscribe(reopen)
    fail(breaker, 3)
    assert breaker.state is CLOSED
    assert told == ["begin open", "end open", "begin closed", "end closed"]


def test_listeners_are_called_outside_the_lock(clock: Clock) -> None:
    breaker = make_breaker(clock)
    seen: list[BreakerState] = []

    def ask_from_another_thread(_: BreakerEvent) -> None:
        in_threads(1, lambda _: seen.append(breaker.snapshot().state))

    breaker.subscribe(ask_from_another_thread)
    fail(breaker, 3)
    assert seen == [OPEN]


def test_events_of_many_threads_come_in_order_and_one_at_a_time(clock: Clock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, clock=clock)
    told: list[BreakerEvent] = []
    overlaps: list[BreakerEvent] = []
    inside = threading.Lock()

    def listen(event: BreakerEvent) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(event)
            return
        time.sleep(0)  # let another thread try
        told.append(event)
        inside.release()

    breaker.subscribe(listen)

    def work(_: int) -> None:
        for _ in range(50):
            permit = breaker.try_acquire()
            if permit is not None:
                permit.failure()
            breaker.reset()

    in_threads(8, work)
    assert not overlaps
    state = CLOSED
    for event in told:
        assert event.old is state
        state = event.new
    assert len({event.new for event in told}) == 2


def test_a_hung_listener_does_not_heap_up_refusals_without_end(clock: Clock) -> None:
    breaker = make_breaker(clock)
    hanging, freed = threading.Event(), threading.Event()
    told: list[BreakerEvent] = []

    def hang(event: BreakerEvent) -> None:
        told.append(event)
        if len(told) == 1:
            hanging.set()
            freed.wait(PATIENCE)

    breaker.subscribe(hang)
    thread = threading.Thread(target=fail, args=(breaker, 3), daemon=True)
    thread.start()
    assert hanging.wait(PATIENCE)
    for _ in range(3000):
        assert breaker.try_acquire() is None
    breaker.reset()
    freed.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [event.kind for event in told].count("rejected") == 1000
    assert told[-1].new is CLOSED  # changes of state are never left out
    assert breaker.snapshot().rejected == 3000


# Crowds


@pytest.mark.parametrize("allowed", [1, 7])
def test_of_a_hundred_threads_at_once_only_the_trials_pass(clock: Clock, allowed: int) -> None:
    breaker = make_breaker(clock, half_open_calls=allowed)
    fail(breaker, 3)
    clock.forward(10)
    passed: list[Permit] = []

    def call(_: int) -> None:
        permit = breaker.try_acquire()
        if permit is not None:
            passed.append(permit)

    in_threads(100, call)
    assert len(passed) == allowed
    assert breaker.snapshot().rejected == 100 - allowed
    for permit in passed:
        permit.success()
    assert breaker.state is CLOSED


@pytest.mark.parametrize("allowed", [1, 7])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_of_a_hundred_tasks_at_once_only_the_trials_pass(
    clock: Clock, allowed: int, loop: str
) -> None:
    breaker = make_breaker(clock, half_open_calls=allowed)
    fail(breaker, 3)
    clock.forward(10)
    passed: list[Permit] = []

    def call() -> None:
        permit = breaker.try_acquire()
        if permit is not None:
            passed.append(permit)

    async def asyncio_call() -> None:
        await asyncio.sleep(0)
        call()

    async def asyncio_main() -> None:
        await asyncio.gather(*(asyncio_call() for _ in range(100)))

    async def trio_call() -> None:
        await trio.lowlevel.checkpoint()
        call()

    async def trio_main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(trio_call)

    if loop == "asyncio":
        asyncio.run(asyncio_main())
    else:
        trio.run(trio_main)
    assert len(passed) == allowed


def test_no_outcome_is_lost_between_threads() -> None:
    breaker = CircuitBreaker()
    breaker.metrics_only()

    def work(index: int) -> None:
        for _ in range(200):
            permit = acquire(breaker)
            if index % 2:
                permit.failure()
            else:
                permit.success()

    in_threads(8, work)
    snapshot = breaker.snapshot()
    assert (snapshot.total_failures, snapshot.total_successes) == (800, 800)


def test_one_permit_answered_by_many_threads_counts_once() -> None:
    breaker = CircuitBreaker()
    breaker.metrics_only()
    permits = [acquire(breaker) for _ in range(200)]

    def answer(index: int) -> None:
        for permit in permits:
            if index % 2:
                permit.failure()
            else:
                permit.success()

    in_threads(4, answer)
    snapshot = breaker.snapshot()
    assert snapshot.total_failures + snapshot.total_successes == 200


# Forks, reentry, the house


def test_a_fork_while_another_thread_holds_the_locks_leaves_the_child_free_ones() -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        # There is no public way to be caught in the middle of it.
        with breaker._lock, breaker._events._changing:
            held.set()
            done.wait(PATIENCE)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert held.wait(PATIENCE)
    child = os.fork()
    if child == 0:
        signal.alarm(int(PATIENCE))  # a child that deadlocks must not outlive the test
        breaker.subscribe(print)()
        fail(breaker)
        os._exit(0 if breaker.state is OPEN else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join(PATIENCE)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_fork_while_events_are_told_leaves_them_to_the_parent() -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    telling, done = threading.Event(), threading.Event()
    told: list[BreakerState] = []

    def listen(event: BreakerEvent) -> None:
        told.append(event.new)
        telling.set()
        done.wait(PATIENCE)

    breaker.subscribe(listen)
    thread = threading.Thread(target=fail, args=(breaker,), daemon=True)
    thread.start()
    assert telling.wait(PATIENCE)
    breaker.reset()  # its event waits for the other thread
    child = os.fork()
    if child == 0:
        signal.alarm(int(PATIENCE))
        done.set()
        told.clear()
        breaker.force_open()
        os._exit(0 if told == [BreakerState.FORCED_OPEN] else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join(PATIENCE)
    assert os.waitstatus_to_exitcode(status) == 0
    assert told == [OPEN, CLOSED]


def test_a_permit_given_back_by_the_collector_in_mid_transition_does_not_deadlock(
    clock: Clock,
) -> None:
    # The collector may close an abandoned generator wherever memory is asked for, and so in the
    # very thread that holds the lock.
    breaker = make_breaker(clock)
    fail(breaker, 3)
    clock.forward(10)
    trial = acquire(breaker)

    def collect() -> None:
        with breaker._lock:
            trial.cancelled()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    succeed(breaker)
    assert breaker.state is CLOSED


def test_health_lends_its_clock_and_randomness_only_where_none_were_given(clock: Clock) -> None:
    lent = CircuitBreaker(consecutive_failures=1, open_for=10)
    lent._use(clock, lambda: 0.5)
    fail(lent)
    assert lent.retry_after == pytest.approx(9.5)
    own = CircuitBreaker(consecutive_failures=1, open_for=10, clock=clock, random=never_jitter)
    own._use(lambda: math.nan, lambda: math.nan)
    fail(own)
    assert own.retry_after == 10.0


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"consecutive_failures": 0}, "consecutive_failures"),
        ({"consecutive_failures": True}, "consecutive_failures"),
        ({"consecutive_failures": 2.5}, "consecutive_failures"),
        ({"consecutive_failures": "5"}, "consecutive_failures"),
        ({"window_calls": 0}, "window_calls"),
        ({"window_calls": 10**20}, "window_calls"),
        ({"window_calls": -(10**400)}, "window_calls"),
        ({"window_seconds": 0}, "window_seconds"),
        ({"window_seconds": math.inf}, "window_seconds"),
        ({"window_calls": 10, "minimum_calls": 0}, "minimum_calls"),
        ({"window_calls": 10, "minimum_calls": 11}, "minimum_calls"),
        ({"minimum_calls": 3}, "minimum_calls needs a window"),
        ({"failure_rate": 0.5}, "failure_rate needs a window"),
        ({"slow_call_duration": 0.5}, "slow_call_duration needs a window"),
        ({"slow_call_rate": 0.5}, "slow_call_rate needs a window"),
        ({"window_calls": 10, "slow_call_rate": 0.5}, "slow_call_rate needs slow_call_duration"),
        ({"window_calls": 10, "window_seconds": 10}, "window_calls and window_seconds"),
        ({"window_calls": 10, "failure_rate": 0}, "failure_rate"),
        ({"window_calls": 10, "failure_rate": 50}, "failure_rate"),
        ({"window_calls": 10, "failure_rate": math.nan}, "failure_rate"),
        ({"window_calls": 10, "slow_call_duration": -1}, "slow_call_duration"),
        ({"window_calls": 10, "slow_call_duration": 1, "slow_call_rate": 2}, "slow_call_rate"),
        ({"half_open_calls": 0}, "half_open_calls"),
        ({"half_open_calls": None}, "half_open_calls"),
        ({"half_open_max_wait": 0}, "half_open_max_wait"),
        ({"half_open_max_wait": math.inf}, "half_open_max_wait"),
        ({"half_open_max_wait": None}, "half_open_max_wait"),
        ({"open_for": 0}, "open_for"),
        ({"open_for": None}, "open_for"),
        ({"open_for": 10, "open_for_max": 5}, "open_for_max"),
        ({"open_for_max": 0}, "open_for_max"),
        ({"backoff": 0.9}, "backoff"),
        ({"backoff": math.inf}, "backoff"),
        ({"jitter": -0.1}, "jitter"),
        ({"jitter": 1.1}, "jitter"),
        ({"jitter": True}, "jitter"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CircuitBreaker(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"is_failure": ValueError()}, "is_failure"),
        ({"is_failure_result": 500}, "is_failure_result"),
        ({"ignore": "ValueError"}, "ignore"),
        ({"ignore": [ValueError]}, "ignore"),
        ({"ignore": (ValueError, int)}, "ignore"),
        ({"clock": 3.0}, "clock"),
        ({"random": 0.5}, "random"),
    ],
    ids=str,
)
def test_an_option_of_a_wrong_type_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        CircuitBreaker(**options)


def test_a_number_that_no_float_can_hold_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"^open_for=inf must be a finite number of seconds"):
        CircuitBreaker(open_for=10**400)


class AsyncPredicate:
    async def __call__(self, _: object) -> bool:
        return False


async def async_predicate(_: object) -> bool:
    return False


@pytest.mark.parametrize(
    "given",
    [async_predicate, functools.partial(async_predicate), AsyncPredicate()],
    ids=["function", "partial", "object"],
)
@pytest.mark.parametrize("option", ["is_failure", "is_failure_result", "clock", "random"])
def test_an_async_function_is_refused_where_nobody_would_await_it(
    option: str, given: object
) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be a sync function"):
        CircuitBreaker(**{option: given})  # type: ignore[arg-type] # that is what is tested


def test_an_async_listener_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^listener must be a sync function"):
        CircuitBreaker().subscribe(async_predicate)


def test_a_listener_that_cannot_be_called_is_refused() -> None:
    listener: Any = "print"
    with pytest.raises(TypeError, match="listener"):
        CircuitBreaker().subscribe(listener)


def test_a_long_first_wait_is_its_own_cap(clock: Clock) -> None:
    breaker = make_breaker(clock, open_for=90.0)
    fail(breaker, 3)
    assert breaker.retry_after == 90.0
    clock.forward(90)
    fail(breaker)
    assert breaker.retry_after == 90.0


def test_a_small_window_needs_no_more_calls_than_it_has(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=3)
    fail(breaker, 3)
    assert breaker.state is OPEN


# What nobody has said


def test_waits_and_trials_are_as_documented_where_nothing_is_said(clock: Clock) -> None:
    breaker = CircuitBreaker(clock=clock, random=never_jitter)
    fail(breaker, 5)
    waits = []
    for _ in range(5):
        waits.append(breaker.retry_after)
        clock.forward(breaker.retry_after or 0.0)
        fail(breaker)
    assert waits == [5.0, 10.0, 20.0, 30.0, 30.0]
    clock.forward(30)
    acquire(breaker)
    assert breaker.try_acquire() is None  # one trial at a time
    clock.forward(29)
    assert breaker.state is HALF_OPEN
    clock.forward(1)
    assert breaker.state is OPEN


def test_a_wait_is_a_tenth_shorter_at_most_where_nothing_is_said(clock: Clock) -> None:
    breaker = CircuitBreaker(clock=clock, random=lambda: 0.5)
    fail(breaker, 5)
    assert breaker.retry_after == pytest.approx(4.75)


def test_a_window_asks_for_ten_calls_and_half_of_them_where_nothing_is_said(clock: Clock) -> None:
    breaker = CircuitBreaker(window_calls=100, clock=clock)
    fail(breaker, 9)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN
    breaker.reset()
    succeed(breaker, 6)
    fail(breaker, 5)
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_half_of_the_calls_slow_open_it_where_nothing_is_said(clock: Clock) -> None:
    breaker = CircuitBreaker(window_seconds=1000, slow_call_duration=2, clock=clock)
    succeed(breaker, 6)
    for _ in range(5):
        call = acquire(breaker)
        clock.forward(2)
        call.success()
    assert breaker.state is CLOSED
    call = acquire(breaker)
    clock.forward(2)
    call.success()
    assert breaker.state is OPEN


def test_what_is_subscribed_hears_of_refusals_where_nothing_is_said(clock: Clock) -> None:
    breaker = make_breaker(clock)
    heard: list[str] = []
    breaker.subscribe(lambda event: heard.append(event.kind))
    fail(breaker, 3)
    assert breaker.try_acquire() is None
    assert heard == ["state_changed", "rejected"]


@pytest.mark.parametrize(
    "options",
    [
        {"consecutive_failures": 1},
        {"window_calls": 1, "minimum_calls": 1},
        {"window_calls": 7, "minimum_calls": 7},
        {"window_calls": 1, "failure_rate": 1},
        {"window_calls": 1, "slow_call_duration": 1, "slow_call_rate": 1.0},
        {"open_for": 5, "open_for_max": 5},
        {"backoff": 1},
        {"jitter": 0},
        {"jitter": 1},
    ],
    ids=str,
)
def test_the_last_values_that_are_allowed(options: dict[str, Any]) -> None:
    assert CircuitBreaker(**options).state is CLOSED
