"""What runs without being asked: checks with an interval, trials of breakers; and the end of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from healthmw import CircuitBreaker, Health, Reason, Status, _closing
from healthmw._threads import DaemonThreads
from healthmw.testing import ManualClock, ScriptedProbe
from tests.broken_log import broken_log
from tests.waiting import PATIENCE, InThread, defy_cancellation, soon, until, until_sync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

anyio_too = pytest.mark.anyio
both_kinds = pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])

GONE = ConnectionError("gone")


# Intervals


@anyio_too
@both_kinds
async def test_a_background_check_runs_from_start_to_end(is_async: bool) -> None:
    probe, on_request = ScriptedProbe(is_async=is_async), ScriptedProbe()
    health = Health(max_age=0)
    check = health.add("it", probe, interval=0.01)
    health.add("on-request", on_request)
    assert (await health.run("it")).results["it"].reason is Reason.NEVER_RUN
    assert probe.calls == 0
    async with health as entered:
        assert entered is health
        await until(lambda: probe.calls >= 3)
        assert (await health.run("it")).ok
        probe.play(GONE)
        await until(lambda: check.status is Status.FAILED)
        assert not (await health.run("it")).ok
        probe.play(None)
        await until(lambda: check.status is Status.OKAY)
    await until(lambda: probe.running == 0)
    calls = probe.calls
    await anyio.sleep(0.05)
    assert probe.calls == calls
    assert on_request.calls == 0


@anyio_too
async def test_what_was_stale_does_not_pass_because_its_probe_fails() -> None:
    clock, probe = ManualClock(), ScriptedProbe(None, GONE)
    health = Health(clock=clock)
    health.add("it", probe, interval=0.02, stale_after=10, failure_threshold=3)
    async with health:
        await until(lambda: health.last().ok)
        clock.advance(10)
        told: list[bool] = []

        def failed() -> bool:
            told.append(health.last().ok)
            return probe.calls > 2

        await until(failed)
    assert not any(told)


@anyio_too
@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})])
async def test_at_the_tightest_bound_a_threshold_still_counts_timeouts() -> None:
    began: list[float] = []

    async def probe() -> None:
        began.append(anyio.current_time())
        if len(began) > 1:
            await anyio.sleep(60)

    health = Health(clock=lambda: 1.001 * anyio.current_time(), random=lambda: 1.0)
    check = health.add("it", probe, interval=10, timeout=2, stale_after=12, failure_threshold=3)
    async with health:
        while check.latest.status is not Status.FAILED:
            await anyio.sleep(0.25)
            assert len(began) < 5
    assert len(began) == 4


def test_a_callback_of_the_loop_may_start_it() -> None:
    health, probe = Health(), ScriptedProbe()
    health.add("it", probe, interval=0.01)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(health.start)
        await until(lambda: probe.calls > 1)
        await health.aclose()

    asyncio.run(main())


@anyio_too
@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})])
async def test_the_tightest_bound_leaves_no_gap_between_two_results() -> None:
    async def probe() -> None:
        await anyio.sleep(1.9)

    health = Health(clock=anyio.current_time, random=lambda: 1.0)  # each pause as long as may be
    health.add("it", probe, interval=10, timeout=2, stale_after=12)
    async with health:
        await anyio.sleep(2)
        for _ in range(200):
            assert (await health.run()).ok
            await anyio.sleep(0.25)


@anyio_too
async def test_it_can_be_started_again_and_added_to() -> None:
    first, second = ScriptedProbe(), ScriptedProbe()
    health = Health()
    health.add("first", first, interval=0.01)
    for _ in range(2):
        calls = first.calls
        async with health:
            await until(functools.partial(lambda before: first.calls > before, calls))
    health.start()
    health.add("second", second, interval=0.01)
    health.start()
    health.start()
    await until(lambda: second.calls)
    await health.aclose()
    await health.aclose()


@anyio_too
async def test_a_check_that_is_added_between_start_and_end_runs_too() -> None:
    early, late, too_late = ScriptedProbe(), ScriptedProbe(), ScriptedProbe()
    health = Health()
    health.add("early", early, interval=0.01)
    assert early.calls == 0
    async with health:
        health.add("late", late, interval=0.01)
        await until(lambda: early.calls and late.calls)
    health.add("too-late", too_late, interval=0.01)
    await anyio.sleep(0.05)
    assert too_late.calls == 0


@anyio_too
async def test_who_enters_twice_leaves_twice() -> None:
    probe = ScriptedProbe()
    health = Health()
    health.add("it", probe, interval=0.01)
    async with health:
        async with health:
            await until(lambda: probe.calls)
        calls = probe.calls
        await until(lambda: probe.calls > calls)


@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})])
@pytest.mark.parametrize(("random", "pause"), [(0.0, 90.0), (0.5, 100.0), (1.0, 110.0)])
@anyio_too
async def test_intervals_vary_by_a_tenth_either_way(random: float, pause: float) -> None:
    times: list[float] = []
    enough = anyio.Event()

    async def probe() -> None:
        times.append(anyio.current_time())
        if len(times) == 4:
            enough.set()

    health = Health(random=lambda: random)
    health.add("it", probe, interval=100, timeout=1)
    began = anyio.current_time()
    async with health:
        await enough.wait()
    assert times[0] == pytest.approx(began)  # the first time at once
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == pytest.approx([pause] * 3)


@anyio_too
async def test_a_background_check_that_hangs_is_a_timeout_and_then_stuck() -> None:
    probe = ScriptedProbe(is_async=False)
    probe.hang()
    health = Health(max_age=0)
    check = health.add("it", probe, interval=0.01, timeout=0.02)
    reasons = set()
    async with health:
        await until(lambda: check.latest.reason is Reason.TIMEOUT)
        await until(lambda: check.latest.reason is Reason.STUCK)
        reasons.add((await health.run()).results["it"].reason)
        assert probe.calls == 1
        probe.release()
        await until(lambda: check.status is Status.OKAY)
    assert reasons == {Reason.STUCK}


@anyio_too
async def test_a_background_check_goes_on_after_rounds_that_broke_down(
    breakdowns: list[BaseException],
) -> None:
    class Clock:
        broken = False

        def __call__(self) -> float:
            if self.broken:
                raise OSError("no clock")
            return time.monotonic()

    clock, probe = Clock(), ScriptedProbe(is_async=False)
    health = Health(clock=clock)
    check = health.add("it", probe, interval=0.01, timeout=0.02)
    async with health:
        await until(lambda: check.status is Status.OKAY)
        probe.hang()
        await until(lambda: check.latest.reason is Reason.STUCK)
        clock.broken = True
        await until(lambda: len(breakdowns) >= 3)
        clock.broken = False
        probe.release()
        await until(lambda: check.status is Status.OKAY)
    assert {type(told) for told in breakdowns} == {OSError}
    breakdowns.clear()


@anyio_too
async def test_a_background_check_goes_on_whatever_the_log_makes_of_it(
    breakdowns: list[BaseException],
) -> None:
    probe = ScriptedProbe(is_async=False)
    health = Health()
    check = health.add("it", probe, interval=0.01, timeout=0.02)
    async with health:
        await until(lambda: check.status is Status.OKAY)
        probe.hang()
        with broken_log():
            await until(lambda: check.status is Status.FAILED)
            await anyio.sleep(0.05)
        probe.release()
        await until(lambda: check.status is Status.OKAY)
    breakdowns.clear()  # what the log breaks down with


def test_what_was_cancelled_with_all_the_tasks_of_a_loop_begins_again() -> None:
    probe = ScriptedProbe()
    health = Health()
    health.add("it", probe, interval=0.01)

    async def runs_again() -> None:
        calls = probe.calls
        health.start()  # as the next request has it
        await until(lambda: probe.calls > calls + 1)

    async def main() -> None:
        async with health:
            for number in range(40):  # at any moment, also as a run is about to begin
                await runs_again()
                await asyncio.sleep(0.0003 * number)
                others = asyncio.all_tasks() - {asyncio.current_task()}
                for task in others:
                    task.cancel()
                await asyncio.wait(others)

    asyncio.run(main())


def test_without_an_event_loop_it_runs_in_the_portal() -> None:
    probes = [ScriptedProbe(), ScriptedProbe(is_async=False)]
    health = Health()
    for number, probe in enumerate(probes):
        health.add(f"check-{number}", probe, interval=0.01)
    assert health.run_sync().status is Status.UNKNOWN
    health.start()
    try:
        until_sync(lambda: all(probe.calls >= 2 for probe in probes))
        assert health.run_sync().ok
    finally:
        asyncio.run(health.aclose())
    calls = [probe.calls for probe in probes]
    time.sleep(0.2)
    # A thread may just have been on its way to one of them, and that run still counts.
    for probe, before in zip(probes, calls, strict=True):
        assert probe.calls <= before + 1


@anyio_too
async def test_what_began_before_there_was_a_loop_of_the_app_moves_over_to_it() -> None:
    threads: list[int] = []

    async def probe() -> None:
        threads.append(threading.get_ident())

    health = Health()
    health.add("it", probe, interval=0.01)
    await anyio.to_thread.run_sync(health.start)
    await until(lambda: threads)
    here = threading.get_ident()
    assert here not in threads
    async with health:
        await until(lambda: threads[-20:] == [here] * 20)


@anyio_too
async def test_a_trial_is_made_on_the_loop_of_the_app_whoever_opened_the_breaker() -> None:
    threads: list[int] = []

    async def probe() -> None:
        threads.append(threading.get_ident())

    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.01)
    health = Health()
    check = health.add("payments", probe, breaker=breaker)

    def call() -> None:
        with contextlib.suppress(ConnectionError), check.guard():
            raise ConnectionError

    async with health:
        await anyio.to_thread.run_sync(call)
        assert not check.available
        await until(lambda: check.available)
    assert threads == [threading.get_ident()]


@anyio_too
async def test_what_threads_ask_for_runs_on_the_loop_of_the_app() -> None:
    threads = []

    async def probe() -> None:
        threads.append(threading.get_ident())

    health = Health(max_age=0)
    health.add("it", probe)
    async with health:
        reader = InThread(health.run_sync)
        await until(lambda: reader.done)
        assert reader.result().ok
        assert threads == [threading.get_ident()]
        # But for one who blocks that loop: for him the portal does it.
        assert health.run_sync().ok
    await until(lambda: InThread(health.run_sync).result().ok)
    assert threading.get_ident() not in threads[1:]
    assert len(threads) == 3


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_when_the_loop_of_the_app_has_ended_the_portal_takes_over(backend: str) -> None:
    probe = ScriptedProbe()
    health = Health(max_age=0)
    check = health.add("it", probe, interval=0.01)

    async def app() -> None:
        health.start()
        await until(lambda: probe.calls)

    anyio.run(app, backend=backend)  # it ends without a word
    assert health.run_sync(fresh=True).ok
    calls = probe.calls
    health.start()
    until_sync(lambda: probe.calls >= calls + 2)
    assert check.status is Status.OKAY
    asyncio.run(health.aclose())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_closing_on_another_loop_than_the_one_that_has_ended(backend: str) -> None:
    probe, client = ScriptedProbe(), Client()
    health = Health()
    health.add("it", probe, interval=0.01)
    health.add("client", client)

    async def app() -> None:
        health.start()
        await until(lambda: probe.calls)

    anyio.run(app, backend=backend)
    anyio.run(health.aclose)
    assert client.closed == 1


# Trials of an open breaker


@anyio_too
@both_kinds
async def test_the_trial_is_made_without_anybody_asking(is_async: bool) -> None:
    probe = ScriptedProbe(GONE, is_async=is_async)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.02)
    health = Health()
    check = health.add("payments", probe, breaker=breaker)
    await soon(health.run())
    assert not check.available
    await until(lambda: probe.calls >= 3)  # with backoff, again and again
    assert not check.available
    probe.play(None)
    await until(lambda: check.available)
    assert (await health.run()).ok
    calls = probe.calls
    await anyio.sleep(0.1)
    assert probe.calls == calls  # and then no more
    await health.aclose()


@anyio_too
@both_kinds
async def test_nobody_waits_for_a_trial_that_is_under_way(is_async: bool) -> None:
    probe = ScriptedProbe(GONE, is_async=is_async)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.02)
    health = Health(max_age=0)
    health.add("payments", probe, breaker=breaker, timeout=PATIENCE)
    await soon(health.run())
    probe.hang()
    await until(lambda: probe.running == 1)
    assert (await soon(health.run())).results["payments"].reason is Reason.CIRCUIT_OPEN
    assert (probe.calls, probe.running) == (2, 1)
    probe.play(None)
    probe.release()
    await until(lambda: breaker.available)
    assert (await soon(health.run())).ok
    await health.aclose()


@anyio_too
@both_kinds
async def test_nor_for_one_that_another_reader_has_set_off(is_async: bool) -> None:
    clock = ManualClock()
    probe = ScriptedProbe(GONE, is_async=is_async)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=3600, open_for_max=3600)
    health = Health(max_age=0, clock=clock)
    health.add("payments", probe, breaker=breaker, timeout=PATIENCE)
    await soon(health.run())
    probe.hang()
    clock.advance(3600)
    async with anyio.create_task_group() as group:
        group.start_soon(health.run)
        await until(lambda: probe.running == 1)
        for _ in range(3):
            result = (await soon(health.run())).results["payments"]
            assert result.reason is Reason.CIRCUIT_OPEN
            assert probe.running == 1
        probe.release()
    assert probe.calls == 2
    await health.aclose()


@anyio_too
@both_kinds
@pytest.mark.parametrize("make_breaker", [lambda: None, CircuitBreaker], ids=["alone", "breaker"])
async def test_a_failure_does_not_last_because_nobody_asks_the_endpoint(
    make_breaker: Callable[[], CircuitBreaker | None], is_async: bool
) -> None:
    clock = ManualClock()
    probe = ScriptedProbe(GONE, GONE, None, is_async=is_async)
    health = Health(clock=clock)
    check = health.add("payments", probe, breaker=make_breaker())
    first = (await soon(health.run())).results["payments"]
    for _ in range(5):
        assert not check.available
    clock.advance(1)
    assert not check.available  # nobody waits for the probe
    await until(lambda: check.latest is not first)
    assert (probe.calls, check.available) == (2, False)
    clock.advance(1)
    await until(lambda: check.available)
    assert probe.calls == 3
    await health.aclose()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_nor_because_who_asks_has_a_loop_for_each_call(backend: str) -> None:
    """As a view has that is async in Flask, or in Django under WSGI."""
    calls = itertools.count()

    async def probe() -> None:
        if not next(calls):
            raise GONE
        await anyio.sleep(0.05)  # for longer than that loop lives

    health = Health(max_age=0)
    check = health.add("payments", probe)
    health.run_sync()

    async def view() -> bool:
        return check.available

    assert not anyio.run(view, backend=backend)
    until_sync(lambda: anyio.run(view, backend=backend))
    asyncio.run(health.aclose())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_availability_can_be_asked_for_where_the_clock_can_not(backend: str) -> None:
    health = Health(clock=anyio.current_time)
    check = health.add("payments", ScriptedProbe(GONE))
    anyio.run(health.run, backend=backend)
    assert not check.available
    asyncio.run(health.aclose())


def test_the_apps_own_failing_calls_set_off_trials_too() -> None:
    probe = ScriptedProbe()
    breaker = CircuitBreaker(consecutive_failures=2, open_for=0.02)
    health = Health()
    check = health.add("payments", probe, breaker=breaker)
    for _ in range(2):
        permit = breaker.try_acquire()
        assert permit is not None
        permit.failure()
    assert not check.available
    until_sync(lambda: check.available)
    assert probe.calls == 1
    asyncio.run(health.aclose())


@anyio_too
async def test_a_trial_that_decides_nothing_is_not_repeated_at_once() -> None:
    probe = ScriptedProbe(GONE, ValueError("says nothing"))
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.02, ignore=ValueError)
    health = Health()
    health.add("payments", probe, breaker=breaker)
    await soon(health.run())
    await until(lambda: probe.calls == 2)
    await anyio.sleep(0.4)
    assert probe.calls <= 3
    await health.aclose()


@anyio_too
async def test_trials_go_on_whatever_the_log_makes_of_them(
    breakdowns: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    # White-box: so that the test need not wait out the whole second.
    monkeypatch.setattr("healthmw._background._INDECISIVE_PAUSE", 0.05)
    probe = ScriptedProbe(is_async=False)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.02, backoff=1)
    health = Health()
    check = health.add("payments", probe, breaker=breaker, timeout=0.02)
    async with health:
        assert (await soon(health.run())).ok
        probe.hang()
        with contextlib.suppress(ConnectionError), check.guard():
            raise GONE
        with broken_log():
            await until(lambda: check.latest.reason is Reason.TIMEOUT)
            await anyio.sleep(0.05)
        probe.release()
        await until(lambda: breaker.available)
    breakdowns.clear()  # what the log breaks down with


@anyio_too
async def test_trials_wait_for_the_time_of_the_clock() -> None:
    clock = ManualClock()
    probe = ScriptedProbe(GONE, None)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.1, jitter=0)
    health = Health(clock=clock)
    check = health.add("payments", probe, breaker=breaker)
    await soon(health.run())
    clock.advance(0.05)
    await anyio.sleep(0.3)
    assert probe.calls == 1
    clock.advance(0.05)
    await until(lambda: check.available)
    assert probe.calls == 2
    await health.aclose()


@anyio_too
async def test_a_trial_that_is_cancelled_may_be_made_by_another() -> None:
    probe = ScriptedProbe(GONE, None)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.02, half_open_max_wait=3600)
    health = Health(max_age=0)
    check = health.add("payments", probe, breaker=breaker, timeout=PATIENCE)
    await soon(health.run())
    probe.hang()
    await until(lambda: probe.running)
    await health.aclose()  # in the middle of the trial
    assert probe.running == 0
    probe.release()
    assert not check.available
    assert (await soon(health.run())).ok
    assert check.available


@anyio_too
async def test_a_breaker_that_is_overruled_has_no_trials() -> None:
    probe = ScriptedProbe(GONE)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.05)
    health = Health()
    health.add("payments", probe, breaker=breaker)
    await soon(health.run())
    breaker.force_open()
    await anyio.sleep(0.2)
    assert probe.calls == 1
    breaker.reset()
    await health.aclose()


@anyio_too
async def test_trials_end_with_the_health_and_go_on_when_it_starts_again() -> None:
    probe = ScriptedProbe(GONE)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.05, backoff=1)
    health = Health()
    check = health.add("payments", probe, breaker=breaker)
    async with health:
        await soon(health.run())
    calls = probe.calls
    await anyio.sleep(0.15)
    assert probe.calls == calls
    assert not check.available
    probe.play(None)
    async with health:
        await until(lambda: check.available)
    assert probe.calls == calls + 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_trials_end_with_their_loop_and_go_on_in_the_next(backend: str) -> None:
    probe = ScriptedProbe(GONE)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.05, backoff=1)
    health = Health()
    check = health.add("payments", probe, breaker=breaker)
    anyio.run(health.run, backend=backend)
    assert not check.available
    probe.play(None)
    health.start()  # in the portal, for there is no loop here
    until_sync(lambda: check.available)
    assert probe.calls == 2
    asyncio.run(health.aclose())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_trials_outlive_the_loop_of_the_call_that_opened_the_breaker(backend: str) -> None:
    # Flask runs each async view on a loop of its own, and so does asgiref for Django's.
    probe, breaker = ScriptedProbe(), CircuitBreaker(consecutive_failures=1, open_for=0.05)
    health = Health()
    check = health.add("payments", probe, breaker=breaker)

    @check.guard(fallback="later")
    async def charge() -> str:
        raise GONE

    assert anyio.run(charge, backend=backend) == "later"
    until_sync(lambda: check.available)
    assert probe.calls == 1
    asyncio.run(health.aclose())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_trials_outlive_the_loop_of_the_app_where_nobody_closes_the_health(backend: str) -> None:
    probe, breaker = ScriptedProbe(), CircuitBreaker(consecutive_failures=1, open_for=0.05)
    health = Health()
    check = health.add("payments", probe, breaker=breaker)

    async def main() -> None:
        health.start()
        with contextlib.suppress(ConnectionError), check.guard():
            raise GONE

    anyio.run(main, backend=backend)
    until_sync(lambda: check.available)
    assert probe.calls == 1
    asyncio.run(health.aclose())


@anyio_too
@pytest.mark.parametrize("started", [True, False])
async def test_a_trial_is_made_on_the_loop_that_the_call_failed_on(started: bool) -> None:
    threads = set()

    async def probe() -> None:
        threads.add(threading.get_ident())

    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.02)
    health = Health()
    check = health.add("payments", probe, breaker=breaker)
    if started:
        health.start()
    with contextlib.suppress(ConnectionError), check.guard():
        raise GONE
    await until(lambda: check.available)
    assert threads == {threading.get_ident()}
    await health.aclose()


def test_a_crowd_that_is_refused_has_one_trial_made() -> None:
    async def main() -> None:
        probe, breaker = ScriptedProbe(), CircuitBreaker(consecutive_failures=1, open_for=0.02)
        health = Health()
        check = health.add("payments", probe, breaker=breaker, timeout=PATIENCE)

        @check.guard(fallback="later")
        def charge() -> str:
            raise GONE

        probe.hang()
        assert charge() == "later"
        await until(lambda: probe.running)
        before = trio.lowlevel.current_statistics().tasks_living
        assert {charge() for _ in range(50)} == {"later"}
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living <= before
        probe.release()
        await health.aclose()

    trio.run(main)


def test_a_call_that_is_refused_sees_to_the_trial_that_a_closed_loop_has_left() -> None:
    probe, breaker = ScriptedProbe(), CircuitBreaker(consecutive_failures=1, open_for=60, jitter=0)
    clock = ManualClock()
    health = Health(clock=clock)
    check = health.add("payments", probe, breaker=breaker)

    @check.guard(fallback="later")
    async def charge() -> str:
        raise GONE

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(charge()) == "later"
    loop.close()  # without a word to its tasks

    @check.guard(fallback="later")
    def sell() -> str:
        return "sold"

    clock.advance(60)
    assert sell() == "later"
    until_sync(lambda: breaker.state == "closed")
    assert sell() == "sold"
    assert probe.calls == 1
    asyncio.run(health.aclose())


@anyio_too
async def test_a_call_that_fails_after_the_end_sets_off_no_trials() -> None:
    probe = ScriptedProbe(GONE)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.02, backoff=1, jitter=0)
    health = Health()
    check = health.add("payments", probe, critical=False, breaker=breaker)
    failing = anyio.Event()

    @check.guard(fallback="later")
    async def charge() -> None:
        await failing.wait()
        raise GONE

    async with anyio.create_task_group() as tasks:
        async with health:
            tasks.start_soon(charge)
            await anyio.wait_all_tasks_blocked()
        failing.set()
    assert not check.available
    await anyio.sleep(0.2)
    assert await charge() == "later"
    await anyio.sleep(0.2)
    assert probe.calls == 0


@anyio_too
async def test_a_circuit_that_has_closed_leaves_no_check_in_doubt() -> None:
    probe, other = ScriptedProbe(GONE, None), ScriptedProbe(GONE, None)
    breaker = CircuitBreaker(consecutive_failures=2, open_for=0.05)
    health = Health(max_age=0.01)
    check = health.add("payments", probe, breaker=breaker, success_threshold=3)
    neighbour = health.add("refunds", other, breaker=breaker)
    await soon(health.run())
    assert not check.available
    assert not neighbour.available
    await until(lambda: check.available and neighbour.available)
    assert (probe.calls - 1, breaker.available) == (3, True)
    await health.aclose()


@anyio_too
async def test_a_check_in_doubt_is_left_alone_while_its_breaker_is_forced_open() -> None:
    probe = ScriptedProbe(GONE, GONE, None)
    breaker = CircuitBreaker(consecutive_failures=2, open_for=0.02, jitter=0)
    health = Health(max_age=0.1)
    check = health.add("payments", probe, breaker=breaker, success_threshold=100)
    for _ in range(2):
        await soon(health.run(fresh=True))
    await until(lambda: breaker.available)
    breaker.force_open()
    await until(lambda: not health._background._recovering)  # white-box: it has gone home
    assert not check.available
    await health.aclose()


@anyio_too
async def test_a_circuit_that_was_closed_by_hand_has_no_failing_check_run_on_and_on() -> None:
    probe = ScriptedProbe(GONE)
    breaker = CircuitBreaker(consecutive_failures=2, open_for=0.05)
    health = Health(max_age=0)
    health.add("payments", probe, breaker=breaker)
    for _ in range(2):
        await soon(health.run())
    breaker.reset()
    await anyio.sleep(1.5)
    assert probe.calls <= 3
    await health.aclose()


@anyio_too
async def test_a_breaker_that_opens_just_when_its_trials_end_is_not_forgotten() -> None:
    probe = ScriptedProbe(GONE, None)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.05)
    health = Health()
    health.add("payments", probe, breaker=breaker)

    class Meanwhile:
        """In place of the lock that is taken between the last look at the breaker and the end."""

        reopened = False

        def __init__(self) -> None:
            self.lock = health._background._lock

        def __enter__(self) -> None:
            if not self.reopened and probe.calls == 2 and breaker.available:
                self.reopened = True
                permit = breaker.try_acquire()
                assert permit is not None
                permit.failure()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    # White-box: no public name leads into so small a gap.
    meanwhile = Meanwhile()
    health._background._lock = meanwhile
    await soon(health.run())
    await until(lambda: meanwhile.reopened)
    await until(lambda: breaker.available)
    assert probe.calls == 3
    await health.aclose()


@anyio_too
async def test_a_background_check_makes_the_trial_of_its_breaker() -> None:
    probe = ScriptedProbe(GONE)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.05)
    health = Health()
    check = health.add("payments", probe, breaker=breaker, interval=3600)
    async with health:
        await until(lambda: not check.available)
        probe.play(None)
        await until(lambda: check.available)
        assert (await health.run()).ok


# The end


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    # White-box: so that a test of what hangs need not wait out the whole second that it may take.
    monkeypatch.setattr("healthmw._closing._CLOSING", 0.1)


class Client:
    """A probe with a client to close."""

    def __init__(self, closing: Callable[[], Awaitable[None]] | None = None) -> None:
        self.calls = 0
        self.closed = 0
        self.close_ended = 0
        self._closing = closing

    async def __call__(self) -> None:
        self.calls += 1

    async def aclose(self) -> None:
        self.closed += 1
        if self._closing is not None:
            await self._closing()
        self.close_ended += 1


class SyncClient:
    """A sync one."""

    def __init__(self, closing: Callable[[], object] = int) -> None:
        self.closed = 0
        self.close_ended = 0
        self._closing = closing
        self.threads: list[str] = []

    def __call__(self) -> None: ...

    def close(self) -> Any:
        self.closed += 1
        self.threads.append(threading.current_thread().name)
        result = self._closing()
        self.close_ended += 1
        return result


@anyio_too
async def test_probes_are_closed_at_the_end_and_may_run_again() -> None:
    client, sync_client, rested = Client(), SyncClient(), Client()
    health = Health(max_age=0)
    health.add("async", client)
    health.add("sync", sync_client)
    health.add("rested", rested)
    health.add("function", ScriptedProbe())
    async with health:
        assert (await health.run()).ok
        assert (client.closed, sync_client.closed) == (0, 0)
    assert (client.closed, sync_client.closed, rested.closed) == (1, 1, 1)
    assert threading.current_thread().name not in sync_client.threads  # it may block
    assert (await health.run()).ok
    await health.aclose()
    assert (client.closed, sync_client.closed) == (2, 2)


@anyio_too
async def test_the_clients_of_the_app_are_not_ours_to_close() -> None:
    client = SyncClient()
    health = Health()
    health.add("method", client.__call__)
    health.add("lambda", lambda: client())  # noqa: PLW0108 - a lambda is what is tested
    await health.aclose()
    assert client.closed == 0


@anyio_too
async def test_a_close_that_returns_an_awaitable_is_awaited() -> None:
    ended = []

    async def rest() -> None:
        ended.append(threading.get_ident())

    health = Health()
    health.add("it", SyncClient(rest))
    await health.aclose()
    assert ended == [threading.get_ident()]


@anyio_too
async def test_a_close_that_fails_keeps_no_other_open(
    caplog: pytest.LogCaptureFixture, breakdowns: list[BaseException]
) -> None:
    async def fail() -> None:
        raise OSError("redis://:hunter2@cache is gone")

    async def fail_oddly() -> None:
        raise asyncio.CancelledError("its own")

    def fail_in_thread() -> None:
        raise ZeroDivisionError("broken")

    last = Client()
    health = Health()
    health.add("first", Client(fail))
    health.add("second", SyncClient(fail_in_thread))
    health.add("third", Client(fail_oddly))
    health.add("last", last)
    await soon(health.aclose())
    assert last.close_ended == 1
    told = sorted(record.getMessage() for record in caplog.records)
    assert told[0] == "check first: closing its probe: OSError: redis://:***@cache is gone"
    assert told[1] == "check second: closing its probe: ZeroDivisionError: broken"
    breakdowns.clear()  # where trio does not know the third one's


@pytest.mark.usefixtures("hurried")
@anyio_too
async def test_a_close_that_hangs_holds_up_neither_the_end_nor_the_others() -> None:
    released, sync_released = anyio.Event(), threading.Event()

    async def defy() -> None:
        await defy_cancellation(released)

    hangs, defies = Client(anyio.sleep_forever), Client(defy)
    sync_hangs, last = SyncClient(sync_released.wait), Client()
    health = Health()
    probes: list[Any] = [hangs, defies, sync_hangs, last]
    for number, probe in enumerate(probes):
        health.add(f"check-{number}", probe)
    before = time.monotonic()
    await soon(health.aclose())
    assert time.monotonic() - before < PATIENCE / 2
    assert (hangs.closed, defies.closed, sync_hangs.closed) == (1, 1, 1)
    assert (hangs.close_ended, defies.close_ended, last.close_ended) == (0, 0, 1)
    released.set()
    sync_released.set()
    await until(lambda: defies.close_ended)


@pytest.mark.usefixtures("hurried")
@anyio_too
async def test_while_a_close_is_out_no_second_one_begins() -> None:
    released, sync_released = anyio.Event(), threading.Event()

    async def defy() -> None:
        await defy_cancellation(released)

    defies, sync_hangs, mixed = Client(defy), SyncClient(sync_released.wait), SyncClient(defy)
    probes: list[Client | SyncClient] = [defies, sync_hangs, mixed]
    healths = Health(), Health()
    for health in healths:
        for number, probe in enumerate(probes):
            health.add(f"check-{number}", probe)
    for health in healths * 2:
        await soon(health.aclose())
    closed = [probe.closed for probe in probes]
    released.set()
    sync_released.set()
    assert closed == [1, 1, 1]
    await until(lambda: defies.close_ended and sync_hangs.close_ended)
    await until(lambda: not _closing._out)  # white-box: that they came back is told nowhere
    await soon(healths[0].aclose())
    assert [probe.closed for probe in probes] == [2, 2, 2]


@pytest.mark.usefixtures("hurried")
def test_a_close_that_ended_with_its_loop_is_out_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("healthmw._company._LAST_GRACE", 0.05)  # white-box, as above

    async def defy() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(PATIENCE)

    client = Client(defy)
    health = Health()
    health.add("it", client)
    for _ in range(2):
        asyncio.run(health.aclose())
    assert client.closed == 2


@pytest.mark.usefixtures("hurried")
def test_a_hanging_close_that_ends_after_its_loop_hurts_nobody() -> None:
    released = threading.Event()
    client = SyncClient(released.wait)
    health = Health()
    health.add("it", client)
    asyncio.run(health.aclose())
    released.set()
    until_sync(lambda: client.close_ended)  # were the thread to die of it, pytest would say so
    assert health.run_sync().ok


@pytest.mark.usefixtures("hurried")
@anyio_too
async def test_a_close_that_hangs_takes_no_thread_away_from_the_probes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = DaemonThreads(limit=1)
    monkeypatch.setattr("healthmw._closing.THREADS", few)
    monkeypatch.setattr("healthmw._runner.THREADS", few)
    released = threading.Event()
    health = Health(max_age=0)
    health.add("it", SyncClient(released.wait))
    await soon(health.aclose())
    assert (await soon(health.run())).ok
    released.set()


@anyio_too
async def test_a_run_under_way_is_cancelled_before_its_probe_is_closed() -> None:
    class Busy(Client):
        cancelled = 0
        began = anyio.Event()

        async def __call__(self) -> None:
            self.calls += 1
            self.began.set()
            try:
                await anyio.sleep_forever()
            finally:
                self.cancelled += 1
                assert not self.closed

    client = Busy()
    client.began = anyio.Event()
    health = Health(clock=ManualClock())
    health.add("it", client, timeout=PATIENCE)
    async with anyio.create_task_group() as group:
        group.start_soon(health.run)
        await client.began.wait()
        await soon(health.aclose())
    assert (client.cancelled, client.close_ended) == (1, 1)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio takes tasks in any order
@anyio_too
async def test_a_run_that_has_not_yet_made_its_first_step_is_cancelled_too() -> None:
    probe = ScriptedProbe()
    probe.hang()
    health = Health(max_age=0)
    health.add("it", probe, timeout=PATIENCE)
    report, _ = await asyncio.gather(health.run(), health.aclose())
    assert report.results["it"].reason is Reason.NEVER_RUN
    assert probe.running == 0
    probe.release()
    assert (await soon(health.run())).ok


def test_a_run_that_was_given_up_before_it_could_begin_ends_in_peace() -> None:
    released = threading.Event()

    async def blocks() -> None:
        released.wait()

    probe = ScriptedProbe()
    probe.hang()
    blocking, health = Health(max_age=0), Health(max_age=3600)
    blocking.add("blocks", blocks, timeout=0.02)
    check = health.add("it", probe, timeout=0.02)
    assert not InThread(blocking.run_sync).result().ok  # the portal stands still
    assert InThread(health.run_sync).result().results["it"].reason is Reason.TIMEOUT
    asyncio.run(health.aclose())
    released.set()
    until_sync(lambda: (probe.calls, probe.running) == (1, 0))
    assert check.latest.reason is Reason.TIMEOUT
    probe.release()
    until_sync(lambda: health.run_sync(fresh=True).ok)


@anyio_too
async def test_a_probe_whose_run_is_stuck_is_not_closed_under_it() -> None:
    released = threading.Event()

    class Stuck(SyncClient):
        def __call__(self) -> None:
            released.wait()

    client, other = Stuck(), SyncClient()
    health = Health()
    health.add("stuck", client, timeout=0.02)
    health.add("other", other)
    await soon(health.run())
    await soon(health.aclose())
    assert (client.closed, other.closed) == (0, 1)
    released.set()


@anyio_too
async def test_who_is_cancelled_while_closing_leaves_at_once() -> None:
    client = Client(anyio.sleep_forever)
    health = Health()
    health.add("it", client)
    with anyio.move_on_after(0.05) as scope:
        await health.aclose()
    assert scope.cancelled_caught
    assert (client.closed, client.close_ended) == (1, 0)


@anyio_too
async def test_nothing_to_close_is_closed_at_once() -> None:
    await soon(Health().aclose())
