"""The threads that sync probes run in, with limits small enough to be met."""

from __future__ import annotations

import functools
import io
import sys
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from healthmw import CircuitBreaker, Health, Reason
from healthmw._threads import DaemonThreads
from healthmw.testing import ScriptedProbe
from tests.waiting import PATIENCE, InThread, soon, until, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable


class Call:
    """A call that notes where it runs, and that ends when told to."""

    def __init__(self, *, ends: bool = False) -> None:
        self.thread: threading.Thread | None = None
        self.release = threading.Event()
        self.done = False
        if ends:
            self.release.set()

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.release.wait()
        self.done = True


def alive(*calls: Call) -> list[bool]:
    return [call.thread is not None and call.thread.is_alive() for call in calls]


def test_a_thread_is_used_again_and_ends_when_it_has_been_idle() -> None:
    threads = DaemonThreads(idle_seconds=0.1)
    first, second = Call(ends=True), Call(ends=True)
    threads.start(first)
    until_sync(lambda: first.done)
    until_sync(lambda: threads._idle)  # white-box: from outside, an idle thread looks like any
    threads.start(second)
    until_sync(lambda: second.done)
    assert first.thread is second.thread
    assert first.thread is not None
    assert first.thread.daemon
    until_sync(lambda: alive(first) == [False])
    third = Call(ends=True)
    threads.start(third)
    until_sync(lambda: third.done)
    assert third.thread is not first.thread


def test_what_is_above_the_limit_waits_in_line() -> None:
    threads = DaemonThreads(limit=2)
    calls = [Call() for _ in range(5)]
    for call in calls:
        threads.start(call)
    until_sync(lambda: alive(*calls) == [True, True, False, False, False])
    calls[1].release.set()
    until_sync(lambda: calls[2].thread is not None)
    assert calls[3].thread is None
    for call in calls:
        call.release.set()
    until_sync(lambda: all(call.done for call in calls))
    assert len({call.thread for call in calls}) == 2


def test_several_at_once_find_a_thread_each() -> None:
    threads = DaemonThreads()
    idle = [Call(), Call()]
    for call in idle:
        threads.start(call)
    for call in idle:
        call.release.set()
    until_sync(lambda: threads._idle == 2)
    calls = [Call() for _ in range(5)]
    for call in calls:
        threads.start(call)
    until_sync(lambda: all(alive(*calls)))
    assert len({call.thread for call in calls}) == 5
    assert {call.thread for call in idle} <= {call.thread for call in calls}
    for call in calls:
        call.release.set()


def test_an_abandoned_call_gives_its_place_to_another() -> None:
    threads = DaemonThreads(limit=1)
    stuck, waits = Call(), Call(ends=True)
    job = threads.start(stuck)
    threads.start(waits)
    until_sync(lambda: stuck.thread)
    assert waits.thread is None
    assert threads.abandon(job) is False  # it has begun, and may still come back
    until_sync(lambda: waits.done)
    assert threads.abandon(job) is False
    # When it does come back its thread is used again, within the limit.
    stuck.release.set()
    until_sync(lambda: stuck.done)
    calls = [Call() for _ in range(2)]
    for call in calls:
        threads.start(call)
    until_sync(lambda: calls[0].thread)
    assert alive(*calls) == [True, False]
    for call in calls:
        call.release.set()
    until_sync(lambda: calls[1].done)


def test_a_call_abandoned_in_line_is_never_made() -> None:
    threads = DaemonThreads(limit=1)
    first, second, third = Call(), Call(), Call(ends=True)
    threads.start(first)
    job = threads.start(second)
    threads.start(third)
    assert threads.abandon(job) is True
    assert threads.abandon(job) is False
    first.release.set()
    until_sync(lambda: third.done)
    assert second.thread is None


def test_abandoning_what_has_ended_changes_nothing() -> None:
    threads = DaemonThreads(limit=1)
    for _ in range(3):
        call = Call(ends=True)
        job = threads.start(call)
        until_sync(functools.partial(lambda call: call.done and threads._idle == 1, call))
        assert threads.abandon(job) is False
    calls = [Call(), Call()]
    for call in calls:
        threads.start(call)
    until_sync(lambda: calls[0].thread)
    assert calls[1].thread is None  # the limit is what it was
    for call in calls:
        call.release.set()


@pytest.fixture
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    start = threading.Thread.start

    def no_more(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    return lambda none: monkeypatch.setattr(threading.Thread, "start", no_more if none else start)


def test_where_no_thread_can_be_had_the_caller_is_told(
    no_more_threads: Callable[[bool], None],
) -> None:
    threads = DaemonThreads(limit=2)
    refused, call = Call(ends=True), Call(ends=True)
    no_more_threads(True)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threads.start(refused)
    no_more_threads(False)
    threads.start(call)
    until_sync(lambda: call.done)
    assert refused.thread is None  # it is not made behind the caller's back


def test_what_waits_for_a_place_and_finds_no_thread_waits_on(
    no_more_threads: Callable[[bool], None],
) -> None:
    threads = DaemonThreads(limit=1)
    stuck, waits = Call(), Call(ends=True)
    job = threads.start(stuck)
    threads.start(waits)
    no_more_threads(True)
    assert threads.abandon(job) is False
    assert waits.thread is None
    stuck.release.set()  # its own thread does it then
    until_sync(lambda: waits.done)
    assert waits.thread is stuck.thread


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_a_call_that_raises_takes_no_thread_with_it(
    error: type[BaseException], breakdowns: list[BaseException]
) -> None:
    def fail() -> None:
        raise error("a defect")

    threads = DaemonThreads(limit=1)
    for _ in range(3):
        threads.start(fail)
    call = Call(ends=True)
    threads.start(call)
    until_sync(lambda: call.done)
    assert [type(told) for told in breakdowns] == [error] * 3
    breakdowns.clear()


class Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stderr", [None, Gone()])
def test_where_nothing_can_be_printed_a_call_that_raises_takes_no_thread_with_it(
    stderr: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "stderr", stderr)
    threads = DaemonThreads(limit=1)
    threads.start(fail)
    call = Call(ends=True)
    threads.start(call)
    until_sync(lambda: call.done)


# As seen from outside


@pytest.mark.anyio
async def test_a_check_that_finds_no_place_is_a_timeout_and_never_stuck() -> None:
    hangs, late = ScriptedProbe(is_async=False), ScriptedProbe(is_async=False)
    hangs.hang()
    crowd, health = Health(), Health(max_age=0)
    for number in range(128):
        crowd.add(f"check-{number}", hangs, timeout=PATIENCE)
    health.add("late", late, timeout=0.05)
    everybody = InThread(crowd.run_sync)
    await until(lambda: hangs.running == 128)
    for _ in range(2):
        assert (await soon(health.run())).results["late"].reason is Reason.TIMEOUT
        await anyio.sleep(0.15)  # longer than the grace after which a run would be called stuck
    assert late.calls == 0
    hangs.release()
    await until(lambda: everybody.done)
    tries = 1
    with anyio.fail_after(PATIENCE):
        while not (
            await health.run()
        ).ok:  # a busy machine may not wake a thread in so short a time
            tries += 1
    assert 1 <= late.calls <= tries


@pytest.mark.anyio
async def test_what_a_thread_hands_over_to_the_loop_is_limited_too() -> None:
    probe = ScriptedProbe()
    probe.hang()
    health = Health(max_age=0)
    health.add("it", lambda: probe(), timeout=0.05)  # noqa: PLW0108 - sync, as far as one can see
    assert (await soon(health.run())).results["it"].reason is Reason.TIMEOUT
    await until(lambda: probe.running == 0)
    probe.release()
    assert (await soon(health.run())).ok


def test_a_breaker_hears_of_odd_exceptions_as_failures() -> None:
    breaker = CircuitBreaker(consecutive_failures=1, open_for=PATIENCE)
    health = Health(max_age=0)
    health.add("it", ScriptedProbe(SystemExit(1), is_async=False), breaker=breaker)
    assert health.run_sync().results["it"].reason is Reason.FAILED
    assert health.run_sync().results["it"].reason is Reason.CIRCUIT_OPEN
    anyio.run(health.aclose)


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_a_hook_that_raises_takes_no_thread_with_it(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hook(*_told: object) -> None:
        raise error

    def fail() -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(sys, "excepthook", hook)
    threads = DaemonThreads(limit=1)
    threads.start(fail)
    call = Call(ends=True)
    threads.start(call)
    until_sync(lambda: call.done)
