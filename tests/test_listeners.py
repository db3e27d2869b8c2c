"""Listeners: told of every change, in order, and unable to hurt or delay a check."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from healthmw import CircuitBreaker, Health, Reason, Status, StatusChange
from healthmw.exceptions import ProbeFailedError
from healthmw.prometheus import HealthCollector
from healthmw.testing import ManualClock, ScriptedProbe
from tests.broken_log import broken_log
from tests.programs import run_program
from tests.waiting import PATIENCE, InThread, foreign_threads, soon, until, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OKAY, DEGRADED, UNKNOWN, FAILED = Status.OKAY, Status.DEGRADED, Status.UNKNOWN, Status.FAILED
BROKEN = ProbeFailedError("no such table")


class Heard(list[StatusChange]):
    def __call__(self, event: StatusChange, /) -> None:
        self.append(event)


def app(*script: BaseException | None, critical: bool = True) -> tuple[Health, Heard]:
    health, heard = Health(release="v42", max_age=0), Heard()
    health.add("database", ScriptedProbe(*script), critical=critical)
    health.subscribe(heard)
    return health, heard


def runs(health: Health, times: int, group: str = "ready") -> None:
    for _ in range(times):
        health.run_sync(group)


def test_a_listener_hears_what_changed_and_how_the_whole_stood_then() -> None:
    health, heard = app(None, None, BROKEN, BROKEN, None)
    runs(health, 5)
    until_sync(lambda: len(heard) == 3)
    first, broke, mended = heard
    assert [(e.check, e.old, e.new) for e in heard] == [
        ("database", UNKNOWN, OKAY),
        ("database", OKAY, FAILED),
        ("database", FAILED, OKAY),
    ]
    assert (broke.reason, broke.detail, broke.critical) == (Reason.FAILED, "no such table", True)
    assert [e.report.status for e in heard] == [OKAY, FAILED, OKAY]
    assert broke.report.results["database"].detail == "no such table"
    assert {e.release for e in heard} == {"v42"}
    assert first.when < broke.when < mended.when
    assert first.when.tzinfo is not None


def test_a_circuit_that_opens_is_a_change_and_its_trials_are_none() -> None:
    clock, heard = ManualClock(), Heard()
    probe = ScriptedProbe(None)
    breaker = CircuitBreaker(
        consecutive_failures=1, open_for=10, backoff=1, jitter=0, half_open_calls=2
    )
    health = Health(max_age=0, clock=clock)
    check = health.add("database", probe, breaker=breaker)
    health.subscribe(heard)
    runs(health, 1)
    with pytest.raises(ConnectionError), check.guard():
        raise ConnectionError("refused")
    assert health.run_sync().code == 503
    probe.play(None, BROKEN, None, BROKEN, None)
    for _ in range(3):  # one trial passes and the other fails, but for the last time
        clock.advance(10)
        runs(health, 2)
    until_sync(lambda: breaker.available)
    until_sync(lambda: heard and heard[-1].new is OKAY)
    assert [(e.old, e.new, e.reason, e.report.status) for e in heard] == [
        (UNKNOWN, OKAY, Reason.OKAY, OKAY),
        (OKAY, FAILED, Reason.CIRCUIT_OPEN, FAILED),
        (FAILED, OKAY, Reason.OKAY, OKAY),
    ]
    changes = health.history("database").changes
    assert [(change.old, change.new) for change in changes] == [(OKAY, FAILED), (FAILED, OKAY)]
    asyncio.run(health.aclose())


def test_what_is_overruled_before_anything_is_known_comes_back_with_the_first_result() -> None:
    breaker, heard = CircuitBreaker(), Heard()
    health = Health(max_age=0)
    health.add("database", ScriptedProbe(), breaker=breaker)
    health.subscribe(heard)
    breaker.force_open()
    breaker.reset()
    runs(health, 1)
    until_sync(lambda: len(heard) == 2)
    assert [(e.old, e.new) for e in heard] == [(UNKNOWN, FAILED), (FAILED, OKAY)]


def test_an_operator_may_overrule_the_breaker_at_any_moment() -> None:
    # By a signal's handler, say; in its place, the clock that is asked as the verdict is noted.
    overruled = False

    def clock() -> float:
        nonlocal overruled
        if not overruled and any(frame.name == "_note" for frame in traceback.extract_stack()):
            overruled = True
            breaker.reset()
        return time.monotonic()

    breaker = CircuitBreaker(
        consecutive_failures=1, half_open_calls=2, open_for=0.01, jitter=0, clock=clock
    )
    health, heard = Health(max_age=0), Heard()
    check = health.add("database", ScriptedProbe(BROKEN, None), breaker=breaker)
    health.subscribe(heard)
    runs(health, 1)
    until_sync(lambda: overruled)
    until_sync(lambda: check.available)
    InThread(lambda: runs(health, 1)).result()
    until_sync(lambda: bool(heard) and heard[-1].new is OKAY)
    asyncio.run(health.aclose())


def test_a_circuit_that_opens_over_the_probes_own_failure_is_told_with_the_failure() -> None:
    health, heard = Health(max_age=0), Heard()
    breaker = CircuitBreaker(consecutive_failures=1)
    health.add("database", ScriptedProbe(None, BROKEN), breaker=breaker)
    health.subscribe(heard)
    runs(health, 2)
    until_sync(lambda: len(heard) == 2)
    assert (heard[-1].reason, heard[-1].detail) == (Reason.FAILED, "no such table")
    asyncio.run(health.aclose())


def test_the_event_names_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    health, heard = app(None, BROKEN, None)
    monkeypatch.delenv("DYNO", raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "web-7f9c")
    runs(health, 1)
    monkeypatch.setenv("DYNO", "web.1")
    runs(health, 1)
    until_sync(lambda: len(heard) == 2)
    assert [e.instance for e in heard] == [f"web-7f9c:{os.getpid()}", f"web.1:{os.getpid()}"]


def test_a_private_detail_is_not_in_the_repr() -> None:
    health, heard = app(ProbeFailedError("the table of customers"))
    runs(health, 1)
    until_sync(lambda: heard)
    assert "customers" not in repr(heard[0])


def test_what_a_probe_measured_is_scrubbed_before_anybody_gets_it() -> None:
    measured: dict[str, int | float | str] = {
        "dsn": "postgresql://bob:cAnArY@db/app",
        "password": "cAnArY",
        "cut": f"postgresql://bob:{'cAnArY' * 100}@db/app",
        "rows": 3,
        "grains": 10**5000,
    }
    health, heard = Health(), Heard()
    health.add("database", ScriptedProbe(measured))
    health.subscribe(heard)
    result = health.run_sync().results["database"]
    until_sync(lambda: heard)
    assert "cAnArY" not in f"{result} {heard[0].report.results}"
    assert result.measurements["dsn"] == "postgresql://bob:***@db/app"
    assert result.measurements["rows"] == 3
    assert result.measurements["grains"] == "out of range"  # or there would be no repr of it


def test_whole_numbers_are_kept_as_far_as_64_bits_hold_them() -> None:
    kept = {"most": 2**63 - 1, "least": -(2**63)}
    beyond = {"more": 2**63, "less": -(2**63) - 1}
    health = Health()
    health.add("it", ScriptedProbe(kept | beyond))
    measured = health.run_sync().results["it"].measurements
    assert measured == kept | dict.fromkeys(beyond, "out of range")


def test_draining_is_told_once() -> None:
    health, heard = app(None)
    runs(health, 1)
    health.drain()
    health.drain()
    until_sync(lambda: len(heard) == 2)
    drained = heard[1]
    assert (drained.check, drained.old, drained.new) == (None, OKAY, FAILED)
    assert drained.reason is Reason.DRAINING
    assert (drained.report.status, drained.report.reason) == (FAILED, Reason.DRAINING)


def test_a_check_outside_ready_is_told_of_with_its_own_detail() -> None:
    health, heard = Health(max_age=0), Heard()
    health.add("migrations", ScriptedProbe(BROKEN), groups=["release"])
    health.add("database", ScriptedProbe())
    health.subscribe(heard)
    runs(health, 1, "release")
    until_sync(lambda: len(heard) == 2)
    (told,) = (e for e in heard if e.check == "migrations")
    assert (told.new, told.detail) == (FAILED, "no such table")
    assert list(told.report.results) == ["database"]


def test_an_async_listener_has_one_loop_of_its_own() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def listener(event: StatusChange) -> None:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())

    health, heard = app(None, BROKEN)
    health.subscribe(listener)
    runs(health, 2)
    until_sync(lambda: len(loops) == 2)
    assert loops[0] is loops[1]
    until_sync(lambda: len(heard) == 2)  # the other listener has a thread of its own


def raises(event: StatusChange) -> None:
    raise ConnectionError("postgresql://bob:cAnArY@db/app is gone")


async def raises_later(event: StatusChange) -> None:
    raises(event)


def exits(event: StatusChange) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize("listener", [raises, raises_later, exits])
def test_what_a_listener_raises_is_logged_and_hurts_nobody(
    listener: Callable[[StatusChange], None], caplog: pytest.LogCaptureFixture
) -> None:
    health, heard = Health(max_age=0), Heard()
    health.add("database", ScriptedProbe(None, BROKEN))
    health.subscribe(listener)
    health.subscribe(heard)
    runs(health, 2)

    def failures() -> list[str]:
        return [
            m for r in caplog.records if "failed: " in (m := r.getMessage()) and "listener" in m
        ]

    until_sync(lambda: len(failures()) == 2)
    assert listener.__qualname__ in failures()[0]
    assert "cAnArY" not in failures()[0]
    until_sync(lambda: len(heard) == 2)


@pytest.mark.anyio
async def test_a_log_that_breaks_down_silences_no_listener(
    breakdowns: list[BaseException],
) -> None:
    health, heard = app(None, BROKEN, None)
    health.subscribe(raises)
    fragile = list[Status]()

    def raises_once(event: StatusChange) -> None:
        fragile.append(event.new)
        if event.new is OKAY:
            raises(event)

    health.subscribe(raises_once)
    with broken_log():
        async with health:
            for told in (1, 2, 3):
                await soon(health.run())
                await until(lambda told=told: len(fragile) == len(heard) == told)  # type: ignore[misc]
    assert fragile == [OKAY, FAILED, OKAY]
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


@contextmanager
def too_slow() -> Iterator[Health]:
    """A `Health` with a listener that is told nothing more: what comes next is dropped."""
    began, release = threading.Event(), threading.Event()

    def hangs(event: StatusChange) -> None:
        began.set()
        release.wait(PATIENCE)

    health = Health(max_age=0)
    health.add("database", ScriptedProbe(*[None, BROKEN] * 60))
    health.subscribe(hangs)
    runs(health, 1)
    assert began.wait(PATIENCE)
    runs(health, 100)
    assert health.events_dropped == 0
    yield health
    release.set()


def test_a_log_that_breaks_down_over_a_slow_listener_costs_no_other_its_news(
    breakdowns: list[BaseException],
) -> None:
    with too_slow() as health:
        heard = Heard()
        health.subscribe(heard)
        with broken_log():
            runs(health, 1)
        until_sync(lambda: heard)
        assert health.events_dropped == 1
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


def test_who_unsubscribes_while_others_are_being_told_hears_no_more() -> None:
    class Removes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "too slow" in record.getMessage():
                unsubscribe()

    with too_slow() as health:
        removed, last = Heard(), Heard()
        unsubscribe = health.subscribe(removed)
        health.subscribe(last)
        handler, logger = Removes(), logging.getLogger("healthmw")
        logger.addHandler(handler)
        before = foreign_threads()
        try:
            runs(health, 1)
        finally:
            logger.removeHandler(handler)
        until_sync(lambda: last)
        assert len(foreign_threads() - before) == 1  # that of the last one
        assert not removed


def test_a_listener_that_hangs_delays_nobody_and_what_it_misses_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, release = threading.Event(), threading.Event()
    slow: list[StatusChange] = []

    def hangs(event: StatusChange) -> None:
        began.set()
        release.wait(PATIENCE)
        slow.append(event)

    health, heard = Health(max_age=0), Heard()
    health.add("database", ScriptedProbe(*[None, BROKEN] * 60))
    health.subscribe(hangs)
    health.subscribe(heard)
    runs(health, 1)
    assert began.wait(PATIENCE)
    for told in range(2, 111):
        runs(health, 1)
        until_sync(lambda told=told: len(heard) == told)  # type: ignore[misc]
    assert health.events_dropped == 9  # one is being told and 100 wait
    samples = [s for family in HealthCollector(health).collect() for s in family.samples]
    assert [s.value for s in samples if s.name == "healthmw_events_dropped_total"] == [9]
    dropping = [r for r in caplog.records if "too slow" in r.getMessage()]
    assert len(dropping) == 1
    release.set()
    until_sync(lambda: len(slow) == 101)
    assert [e.when for e in slow] == [e.when for e in heard[:101]]


def test_who_unsubscribes_hears_no_more_and_its_thread_ends() -> None:
    health, heard = Health(max_age=0), Heard()
    health.add("database", ScriptedProbe(None, BROKEN, None))
    threads: list[threading.Thread] = []
    unsubscribe = health.subscribe(lambda event: threads.append(threading.current_thread()))
    health.subscribe(heard)
    runs(health, 1)
    until_sync(lambda: threads and heard)
    unsubscribe()
    unsubscribe()
    runs(health, 2)
    until_sync(lambda: len(heard) == 3)
    threads[0].join(PATIENCE)
    assert not threads[0].is_alive()
    assert len(threads) == 1


@pytest.mark.anyio
async def test_closing_waits_until_all_is_told_and_a_later_event_is_told_as_well() -> None:
    told: list[StatusChange] = []
    go = threading.Event()

    def listener(event: StatusChange) -> None:
        go.wait(0.2)
        told.append(event)

    health = Health(max_age=0)
    health.add("database", ScriptedProbe(None, BROKEN))
    health.subscribe(listener)
    async with health:
        await health.run()
    assert len(told) == 1
    await health.run()
    await until(lambda: len(told) == 2)


@pytest.mark.anyio
async def test_closing_does_not_wait_for_a_listener_that_hangs() -> None:
    release = threading.Event()
    health = Health()
    health.add("database", ScriptedProbe())
    health.subscribe(lambda event: release.wait(PATIENCE))
    async with health:
        await health.run()
        await soon(health.aclose())
    release.set()


@pytest.mark.anyio
async def test_a_closing_that_is_cut_short_ends_the_threads_as_well() -> None:
    closing = anyio.Event()

    class Probe(ScriptedProbe):
        async def aclose(self) -> None:
            closing.set()
            await anyio.sleep_forever()

    health = Health()
    health.add("database", Probe())
    threads: list[threading.Thread] = []
    health.subscribe(lambda event: threads.append(threading.current_thread()))
    await health.run()
    await until(lambda: threads)
    async with anyio.create_task_group() as group:
        group.start_soon(health.aclose)
        await soon(closing.wait())
        group.cancel_scope.cancel()
    await until(lambda: not threads[0].is_alive())


def test_a_forked_child_tells_its_own_news_only() -> None:
    out = run_program(
        """
told = []
health = Health(max_age=0)
health.add("it", ScriptedProbe(None, ConnectionError()))
health.subscribe(lambda event: told.append((event.new.value, event.instance)))
health.run_sync()
until_sync(lambda: told)
if os.fork() == 0:
    health.run_sync()
    until_sync(lambda: len(told) == 2)
    assert told[0][1] != told[1][1]
    print(told[1][0], flush=True)
    os._exit(0)
os.wait()
assert len(told) == 1
"""
    )
    assert out == "failed\n"


def test_a_process_ends_whatever_its_listener_does() -> None:
    out = run_program(
        """
began = threading.Event()
health = Health()
health.add("it", ScriptedProbe())
health.subscribe(lambda event: (began.set(), time.sleep(3600)))
health.run_sync()
assert began.wait(20)
print("done")
"""
    )
    assert out == "done\n"


def test_a_listener_can_be_called() -> None:
    with pytest.raises(TypeError, match="listener must be callable, not str"):
        Health().subscribe("webhook")  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "healthmw")


def test_changes_are_told_in_order_however_long_a_log_takes() -> None:
    """A pager that hears of the end of an outage first stays red for good."""
    waits, logged = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "okay -> failed" in record.getMessage():
                waits.set()
                assert logged.wait(PATIENCE)

    health, heard = Health(max_age=0), Heard()
    health.add("database", ScriptedProbe(None, BROKEN, None, is_async=False))
    health.subscribe(heard)
    handler = Slow()
    logger = logging.getLogger("healthmw")
    logger.addHandler(handler)
    try:
        health.run_sync()
        outage = InThread(health.run_sync)
        assert waits.wait(PATIENCE)
        assert health.run_sync().ok  # nobody else waits for the log
        logged.set()
        outage.result()
    finally:
        logger.removeHandler(handler)
    until_sync(lambda: len(heard) == 3)
    assert [event.new for event in heard] == [OKAY, FAILED, OKAY]


@pytest.mark.anyio
async def test_who_is_slow_to_hear_is_told_one_thing_at_a_time_after_a_restart() -> None:
    health, _ = app(None, BROKEN)
    released, inside, most, told = threading.Event(), 0, 0, 0

    def slow(_event: StatusChange) -> None:
        nonlocal inside, most, told
        inside += 1
        most = max(most, inside)
        released.wait(PATIENCE)
        inside -= 1
        told += 1

    health.subscribe(slow)
    async with health:
        await soon(health.run())
        await until(lambda: inside)
    async with health:
        await soon(health.run())
        released.set()
        await until(lambda: told == 2)
    assert most == 1


def test_in_a_child_changes_are_told_though_a_thread_was_telling_one() -> None:
    health, heard = app(None)
    news: Any = health._runners["database"]._news
    news._at_it.acquire()  # as a thread has it for as long as it tells
    health._after_fork()  # what a fork calls in the child
    health.run_sync()
    until_sync(lambda: heard)
