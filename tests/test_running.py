"""How one check runs: limits, what probes may do wrong, and that none of it hurts anything else."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import sys
import threading
import time
import traceback
import types
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from healthmw import (
    CircuitBreaker,
    Degraded,
    DependencyUnavailable,
    Health,
    Reason,
    Report,
    Result,
    Status,
)
from healthmw._steps import Steps, stepwise
from healthmw._threads import DaemonThreads
from healthmw.exceptions import ProbeTimeoutError
from healthmw.testing import ManualClock, ScriptedProbe
from tests.backends import uvloop_too
from tests.breaker_kit import fail
from tests.broken_log import broken_log
from tests.waiting import PATIENCE, InThread, defy_cancellation, soon, until, until_sync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

both_kinds = pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])

BRIEF = 0.05
"""The timeout of checks that are meant to run into it."""

GONE = ConnectionError("gone")


async def one(health: Health, name: str = "it") -> Result:
    return (await soon(health.run(name))).results[name]


# Limits


@both_kinds
@uvloop_too
async def test_a_probe_that_hangs_is_a_timeout_of_its_check_and_of_no_other(is_async: bool) -> None:
    hangs = ScriptedProbe(is_async=is_async)
    hangs.hang()
    health = Health()
    health.add("payments", hangs, timeout=BRIEF, critical=False)
    health.add("database", ScriptedProbe({"n": 1}))
    health.add("disk", ScriptedProbe({"n": 2}, is_async=False))
    report = await soon(health.run())
    result = report.results["payments"]
    assert (result.status, result.raw, result.reason) == (
        Status.FAILED,
        Status.FAILED,
        Reason.TIMEOUT,
    )
    assert result.detail == "not back within 0.05 s"
    assert result.duration >= 0.9 * BRIEF
    assert report.results["database"].measurements == {"n": 1}
    assert report.results["disk"].measurements == {"n": 2}
    assert report.status is Status.DEGRADED
    hangs.release()


@uvloop_too
async def test_each_of_many_has_its_own_time_limit() -> None:
    health = Health()
    limits = {"long": PATIENCE, "short": BRIEF, "longer": 4 * BRIEF, "as_short": BRIEF}
    probes = {name: ScriptedProbe() for name in limits}
    for name, limit in limits.items():
        probes[name].hang()
        health.add(name, probes[name], timeout=limit)
    async with anyio.create_task_group() as group:
        group.start_soon(functools.partial(health.run, "ready"))
        await until(lambda: health.check("longer").status is Status.FAILED)
        assert probes["long"].running
        probes["long"].release()
    report = health.last()
    assert {name: result.reason for name, result in report.results.items()} == {
        "long": Reason.OKAY,
        "short": Reason.TIMEOUT,
        "longer": Reason.TIMEOUT,
        "as_short": Reason.TIMEOUT,
    }
    for name, limit in limits.items():
        assert name == "long" or report.results[name].duration >= 0.9 * limit
        probes[name].release()


@both_kinds
async def test_a_timeout_of_a_critical_check_fails_the_report(is_async: bool) -> None:
    hangs = ScriptedProbe(is_async=is_async)
    hangs.hang()
    health = Health()
    health.add("database", hangs, timeout=BRIEF)
    report = await soon(health.run())
    assert (report.status, report.code) == (Status.FAILED, 503)
    hangs.release()


async def test_a_probe_that_obeys_its_cancellation_runs_again_next_time() -> None:
    probe = ScriptedProbe()
    probe.hang()
    health = Health(max_age=0)
    health.add("it", probe, timeout=BRIEF)
    for calls in (1, 2, 3):
        assert (await one(health)).reason is Reason.TIMEOUT
        await until(lambda: probe.running == 0)
        assert probe.calls == calls
    probe.release()
    assert (await one(health)).reason is Reason.OKAY


class Stubborn:
    """An async probe that takes no notice of its cancellation."""

    def __init__(self) -> None:
        self.calls = 0
        self.running = 0
        self.released: anyio.Event | None = None

    async def __call__(self) -> None:
        self.calls += 1
        self.running += 1
        self.released = self.released or anyio.Event()
        await defy_cancellation(self.released)
        self.running -= 1

    def release(self) -> None:
        assert self.released is not None
        self.released.set()


class CleansUpAtLength(Stubborn):
    """An async probe that gives in, but not before it has cleaned up: for seven seconds, say."""

    async def __call__(self) -> None:
        self.calls += 1
        self.running += 1
        self.released = self.released or anyio.Event()
        try:
            await self.released.wait()
        finally:
            await defy_cancellation(self.released)
            self.running -= 1


async def stuck_once(health: Health, name: str = "it") -> None:
    """Ask until the check that timed out is called stuck."""
    result = await one(health, name)
    assert result.reason is Reason.TIMEOUT
    while result.reason is Reason.TIMEOUT:
        result = await one(health, name)
        await anyio.sleep(0.002)
    assert (result.status, result.reason) == (Status.FAILED, Reason.STUCK)


@uvloop_too
@pytest.mark.parametrize("kind", [Stubborn, CleansUpAtLength])
async def test_who_swallows_its_cancellation_is_left_behind(kind: type[Stubborn]) -> None:
    probe = kind()
    health = Health(max_age=0)
    health.add("stubborn", probe, timeout=BRIEF)
    health.add("other", ScriptedProbe({"n": 1}))
    # The answer leaves in time, though the probe goes on until the end of this test.
    report = await soon(health.run())
    assert report.results["stubborn"].reason is Reason.TIMEOUT
    assert report.results["other"].measurements == {"n": 1}
    assert probe.running == 1
    await until(lambda: health.run_sync().results["stubborn"].reason is Reason.STUCK)
    for _ in range(20):
        report = await soon(health.run())
        assert report.results["stubborn"].reason is Reason.STUCK
        assert report.results["stubborn"].detail == (
            "a run begun 0 s ago has not come back; none is begun beside it"
        )
        assert report.results["other"].ok
    assert probe.calls == 1
    probe.release()
    await until(lambda: probe.running == 0)
    report = await soon(health.run())
    assert report.ok
    assert probe.calls == 2


async def test_a_short_cleanup_is_no_reason_to_call_it_stuck() -> None:
    cleaned = 0

    async def probe() -> None:
        nonlocal cleaned
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            cleaned += 1

    health = Health(max_age=0)
    health.add("it", probe, timeout=BRIEF)
    for _ in range(3):
        assert (await one(health)).reason is Reason.TIMEOUT
    await until(lambda: cleaned >= 1)


@uvloop_too
@pytest.mark.parametrize("deadline", [PATIENCE, BRIEF / 5], ids=["seen by readers", "or not"])
async def test_what_a_probe_makes_of_its_cancellation_does_not_matter(deadline: float) -> None:
    async def raises() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError("closed while reading")

    async def returns() -> Degraded:
        with contextlib.suppress(BaseException):
            await anyio.sleep_forever()
        return Degraded("gave up")

    async def groups() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(raises)
            group.start_soon(raises)

    health = Health(deadline=deadline, max_age=3600)
    checks = [health.add(p.__name__, p, timeout=BRIEF) for p in (raises, returns, groups)]
    report = await soon(health.run())
    assert [result.reason for result in report.results.values()] == [Reason.TIMEOUT] * 3
    await until(lambda: all(check.latest.when for check in checks))
    assert [check.latest.reason for check in checks] == [Reason.TIMEOUT] * 3


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_probe_that_gives_up_by_itself_is_a_timeout_and_runs_again(is_async: bool) -> None:
    late = ProbeTimeoutError("no answer within 2 s")
    probe = ScriptedProbe(late, TimeoutError("the app's own"), {"n": 1}, is_async=is_async)
    health = Health(max_age=0)
    health.add("it", probe)
    result = await one(health)
    assert (result.status, result.reason) == (Status.FAILED, Reason.TIMEOUT)
    assert result.detail == "no answer within 2 s"
    assert (await one(health)).reason is Reason.FAILED  # any exception but that one is a failure
    assert (await one(health)).ok


async def test_a_sync_probe_that_hangs_is_abandoned_and_never_joined_by_a_second() -> None:
    hangs, quick = ScriptedProbe(is_async=False), ScriptedProbe(is_async=False)
    health = Health(max_age=0)
    health.add("hangs", hangs, timeout=BRIEF, critical=False)
    health.add("quick", quick)
    assert (await soon(health.run("quick"))).ok
    hangs.hang()
    before = threading.active_count()
    await stuck_once(health, "hangs")
    for _ in range(200):
        report = await soon(health.run())
        assert report.status is Status.DEGRADED
        assert report.results["quick"].ok
        assert report.results["hangs"].reason is Reason.STUCK
    assert hangs.calls == 1
    assert quick.calls == 201
    # The one that hangs, and a few that were still on their way back to the pool.
    assert threading.active_count() <= before + 20
    hangs.release()
    await until(lambda: hangs.running == 0)
    await until(lambda: health.run_sync("hangs").ok)


async def test_an_async_probe_that_hangs_leaves_no_tasks_behind() -> None:
    hangs = ScriptedProbe()
    hangs.hang()
    health = Health(max_age=0)
    health.add("hangs", hangs, timeout=0.002)
    for _ in range(100):
        assert (await one(health, "hangs")).reason is Reason.TIMEOUT
    await until(lambda: hangs.running == 0)
    hangs.release()


async def test_a_stuck_check_recovers_when_the_run_comes_back() -> None:
    probe = ScriptedProbe(is_async=False)
    probe.hang()
    health = Health(max_age=0)
    health.add("it", probe, timeout=BRIEF)
    await stuck_once(health)
    probe.release()
    await until(lambda: probe.running == 0)
    await until(lambda: health.run_sync().ok)
    assert probe.calls == 2


async def test_what_an_abandoned_run_brings_is_not_taken_for_news() -> None:
    probe = ScriptedProbe({"stale": 1}, is_async=False)
    probe.hang()
    health = Health(max_age=3600)
    check = health.add("it", probe, timeout=BRIEF)
    assert (await one(health)).reason is Reason.TIMEOUT
    probe.release()
    await until(lambda: probe.running == 0)
    await anyio.sleep(0.02)
    assert check.latest.reason is Reason.TIMEOUT
    assert (await one(health)).reason is Reason.TIMEOUT
    assert probe.calls == 1


@pytest.mark.parametrize("outcome", [None, GONE], ids=["returns", "raises"])
async def test_a_run_that_took_too_long_is_a_timeout_though_nobody_waited(outcome: Any) -> None:
    probe = ScriptedProbe(outcome, is_async=False)
    probe.hang()
    health = Health(deadline=0.0123, max_age=3600)
    check = health.add("it", probe, timeout=BRIEF)
    assert (await one(health)).detail == "not back within the group's deadline of 0.01 s"
    await anyio.sleep(2 * BRIEF)
    assert check.latest.when is None
    probe.release()
    await until(lambda: check.latest.when is not None)
    assert check.latest.reason is Reason.TIMEOUT
    await until(lambda: health.run_sync("it", fresh=True).ok is (outcome is None))


@both_kinds
async def test_timeouts_count_towards_the_threshold(is_async: bool) -> None:
    probe = ScriptedProbe(is_async=is_async)
    health = Health(max_age=0)
    health.add("it", probe, timeout=BRIEF, failure_threshold=3)
    assert (await one(health)).ok
    probe.hang()
    seen = []
    for _ in range(3):
        result = await one(health)
        seen.append((result.status, result.raw))
        await anyio.sleep(2 * BRIEF)
    assert seen == [(Status.OKAY, Status.FAILED)] * 2 + [(Status.FAILED, Status.FAILED)]
    probe.release()


@both_kinds
async def test_a_timeout_is_a_failure_for_the_breaker(is_async: bool) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    probe = ScriptedProbe(is_async=is_async)
    probe.hang()
    health = Health(max_age=0)
    health.add("it", probe, timeout=BRIEF, breaker=breaker)
    assert (await one(health)).reason is Reason.TIMEOUT
    assert (await one(health)).reason is Reason.CIRCUIT_OPEN
    assert breaker.snapshot().total_failures == 1
    probe.release()
    await health.aclose()


# What a probe may raise


class Odd(BaseException):
    """Neither an Exception nor anything that is known."""


class Unspeakable(Exception):  # noqa: N818 - it is what it says
    def __str__(self) -> str:
        raise ZeroDivisionError("not even its words can be had")


RAISED: dict[str, tuple[Callable[[], BaseException], str]] = {
    "exception": (lambda: ValueError("wrong"), "ValueError: wrong"),
    "empty": (KeyError, "KeyError"),
    "assertion": (AssertionError, "AssertionError"),
    "its own timeout": (lambda: TimeoutError("read"), "TimeoutError: read"),
    "asyncio's timeout": (asyncio.TimeoutError, "TimeoutError"),
    "cancelled": (lambda: asyncio.CancelledError("own"), "CancelledError: own"),
    "system exit": (lambda: SystemExit(3), "SystemExit: 3"),
    "base exception": (lambda: Odd("odd"), "Odd: odd"),
    "stop iteration": (lambda: StopIteration(5), "StopIteration"),
    "stop async iteration": (StopAsyncIteration, "StopAsyncIteration"),
    "generator exit": (GeneratorExit, "GeneratorExit"),
    "recursion": (lambda: RecursionError("too deep"), "RecursionError: too deep"),
    "unspeakable": (Unspeakable, "Unspeakable"),
    "group": (
        lambda: ExceptionGroup("both", [ValueError("left"), OSError("right")]),
        "ExceptionGroup: ValueError: left; OSError: right",
    ),
    "base group": (
        lambda: BaseExceptionGroup("one", [Odd("left")]),
        "Odd: left",
    ),
    "secrets": (
        lambda: OSError("redis://:hunter2@cache refused"),
        "OSError: redis://:***@cache refused",
    ),
}


@both_kinds
@pytest.mark.parametrize("which", RAISED)
async def test_whatever_a_probe_raises_is_its_own_failure(which: str, is_async: bool) -> None:
    make, detail = RAISED[which]
    probe = ScriptedProbe(None, is_async=is_async)
    health = Health(max_age=0)
    health.add("it", probe)
    health.add("other", ScriptedProbe(is_async=is_async))
    assert (await soon(health.run())).ok
    probe.play(make(), make(), None)
    for _ in range(2):
        report = await soon(health.run())
        result = report.results["it"]
        assert (result.status, result.reason) == (Status.FAILED, Reason.FAILED)
        assert detail in result.detail
        assert "hunter2" not in result.detail
        assert report.results["other"].ok
    assert (await soon(health.run())).ok


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_cancels_itself_says_nothing_and_nothing_old_is_said() -> None:
    well = True

    async def probe() -> None:
        if not well:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)

    health = Health(max_age=0)
    health.add("it", probe)
    assert (await one(health)).ok
    well = False
    result = await one(health)
    assert (result.status, result.reason) == (Status.UNKNOWN, Reason.STALE)
    well = True
    assert (await one(health)).ok


def test_ctrl_c_in_a_probe_ends_the_program() -> None:
    async def probe() -> None:
        raise KeyboardInterrupt

    health = Health()
    check = health.add("it", probe)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(health.run())
    assert check.latest.detail == "KeyboardInterrupt"


@pytest.mark.parametrize("where", ["a thread of its own", "trio", "the portal"])
def test_what_is_no_ctrl_c_is_a_failure_like_any_other(where: str) -> None:
    # Only the main thread hears Ctrl-C, and trio tells it to the main task. Here it is the probe's
    # own invention, which must not take an event loop with it.
    async def probe() -> None:
        raise KeyboardInterrupt

    health = Health(max_age=0)
    health.add("it", probe)
    health.add("other", ScriptedProbe())
    for _ in range(2):
        match where:
            case "trio":
                report = anyio.run(health.run, backend="trio")
            case "the portal":
                report = health.run_sync()
            case _:
                report = InThread(lambda: asyncio.run(health.run())).result()
        assert report.results["it"].detail == "KeyboardInterrupt"
        assert report.results["other"].ok


def test_a_sync_probe_in_its_thread_hears_no_ctrl_c_either() -> None:
    health = Health()
    health.add("it", ScriptedProbe(KeyboardInterrupt, is_async=False))
    assert health.run_sync().results["it"].detail == "KeyboardInterrupt"


# What a probe may do to the loop


def block(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {}), ("asyncio", {"use_uvloop": True})])
async def test_who_blocks_the_loop_is_named_and_nobody_else_suffers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def blocks() -> None:
        await anyio.lowlevel.checkpoint()
        block(0.6)

    async def innocent() -> dict[str, int]:
        await anyio.sleep(0.05)
        await anyio.sleep(0.05)
        return {"n": 1}

    health = Health(max_age=0)
    health.add("innocent", innocent, timeout=0.3)
    health.add("blocks", blocks, timeout=0.3)
    health.add("sync", ScriptedProbe({"n": 2}, is_async=False), timeout=0.3)
    for _ in range(2):
        report = await soon(health.run())
        result = report.results["blocks"]
        assert (result.status, result.reason) == (Status.FAILED, Reason.TIMEOUT)
        assert "not back within 0.3 s; it blocked the event loop for 0.6 s" in result.detail
        assert report.results["innocent"].measurements == {"n": 1}
        assert report.results["sync"].measurements == {"n": 2}
    warnings = [r.getMessage() for r in caplog.records if "blocked the event loop" in r.message]
    blamed = [words for words in warnings if "make its probe a plain function" in words]
    assert len(blamed) == 1  # once, and not for each run
    assert blamed[0].startswith("check blocks blocked the event loop for 0.6")


@pytest.mark.anyio
@pytest.mark.parametrize("order", [("blocks", "innocent"), ("innocent", "blocks")])
@pytest.mark.parametrize("in_thread", [False, True], ids=["on the loop", "from a thread"])
async def test_an_innocent_check_passes_in_whatever_order_they_begin(
    order: tuple[str, str], in_thread: bool
) -> None:
    async def blocks() -> None:
        block(1.2)

    async def innocent() -> None:
        await anyio.sleep(0.05)

    health = Health(max_age=0)
    for name in order:
        health.add(name, {"blocks": blocks, "innocent": innocent}[name], timeout=0.8)
    report = health.run_sync() if in_thread else await soon(health.run())
    assert report.results["blocks"].reason is Reason.TIMEOUT
    assert report.results["innocent"].reason is Reason.OKAY


def test_a_check_that_was_held_up_has_its_timeout_and_not_twice_that() -> None:
    probe = ScriptedProbe()
    probe.hang()

    async def blocks() -> None:
        block(1.5)

    health = Health(max_age=0, deadline=PATIENCE)
    health.add("blocks", blocks, timeout=1)
    health.add("hangs", probe, timeout=1)
    try:
        result = health.run_sync().results["hangs"]
    finally:
        probe.release()
    assert result.reason is Reason.TIMEOUT
    assert result.duration < 3.25  # a second and a half until it could begin, and its own second


def test_who_waits_in_vain_for_another_to_let_go_of_the_loop_names_it() -> None:
    released = threading.Event()

    async def blocks() -> None:
        released.wait(PATIENCE)

    health = Health(deadline=PATIENCE)
    health.add("blocks", blocks, timeout=0.2)
    health.add("innocent", ScriptedProbe(), timeout=0.2)
    try:
        detail = health.run_sync().results["innocent"].detail
    finally:
        released.set()
    assert detail == "not back within 0.2 s; check blocks blocked the event loop"


async def test_only_who_has_been_at_a_step_for_long_holds_up_others() -> None:
    ours, other, here = Steps("ours"), Steps("other"), threading.get_ident()
    held_up: list[str] = []

    async def step() -> None:
        held_up.append(ours.held_up(here, PATIENCE))
        held_up.append(ours.held_up(here, -1.0))
        held_up.append(other.held_up(here, -1.0))

    await stepwise(step(), other)
    assert held_up == ["", "other", ""]
    assert ours.held_up(here, -1.0) == ""


async def test_who_blocks_for_less_than_its_timeout_is_warned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def blocks() -> None:
        block(0.3)

    health = Health()
    health.add("blocks", blocks)
    assert (await soon(health.run())).ok
    assert "check blocks blocked the event loop for 0.3" in caplog.text


async def test_a_probe_is_cancelled_when_its_time_is_over_and_not_later() -> None:
    probe = ScriptedProbe()
    probe.hang()
    health = Health(max_age=0)
    health.add("it", probe, timeout=0.05)
    for _ in range(2):
        assert (await soon(health.run())).results["it"].reason is Reason.TIMEOUT
        await anyio.sleep(0.3)  # what had not ended by now would be stuck


async def test_what_got_no_thread_in_its_time_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    # White-box: the 128 threads that there may be would take long to fill.
    monkeypatch.setattr("healthmw._runner.THREADS", DaemonThreads(limit=1))
    busy, waiting = ScriptedProbe(is_async=False), ScriptedProbe(is_async=False)
    health = Health(max_age=0)
    health.add("busy", busy, timeout=PATIENCE)
    health.add("waiting", waiting, timeout=0.05, per_hour=1)
    busy.hang()
    reader = InThread(lambda: health.run_sync("busy"))
    await until(lambda: busy.running)
    assert (await soon(health.run("waiting"))).results["waiting"].reason is Reason.TIMEOUT
    busy.release()
    await until(lambda: reader.done)
    assert (await soon(health.run("waiting"))).ok
    assert waiting.calls == 1


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_a_probe_that_raises_after_its_time_is_not_stuck_for_ever(is_async: bool) -> None:
    probe = ScriptedProbe(OSError("gone"), is_async=is_async)
    health = Health(max_age=0)
    health.add("it", probe, timeout=0.05)
    probe.hang()
    assert (await soon(health.run())).results["it"].reason is Reason.TIMEOUT
    probe.release()
    await until(lambda: health.run_sync().results["it"].reason is Reason.FAILED)


async def test_two_that_call_a_run_stuck_in_the_same_moment_say_it_once() -> None:
    others: list[Report] = []
    watched = False

    def clock() -> float:
        nonlocal watched
        if watched and any(frame.name == "_join" for frame in traceback.extract_stack()):
            watched = False
            others.append(health.run_sync())
        return time.monotonic()

    probe = ScriptedProbe(is_async=False)
    health = Health(max_age=0, clock=clock)
    health.add("it", probe, timeout=0.05)
    probe.hang()
    await until(lambda: health.run_sync().results["it"].reason is Reason.STUCK)
    watched = True
    report = await soon(health.run())
    probe.release()
    assert report.results["it"].reason is Reason.STUCK
    assert report.results["it"] is others[0].results["it"]


async def test_a_judge_that_is_interrupted_keeps_nobody_waiting() -> None:
    class Interrupted(BaseException):
        pass

    def judge(_error: Exception) -> bool:
        raise Interrupted

    health = Health(max_age=0)
    health.add("it", ScriptedProbe(GONE), breaker=CircuitBreaker(is_failure=judge))
    for _ in range(2):
        assert (await soon(health.run())).results["it"].reason is Reason.FAILED


@both_kinds
async def test_a_judge_of_the_app_s_results_is_not_asked_of_a_probe_s(is_async: bool) -> None:
    breaker = CircuitBreaker(
        consecutive_failures=1, is_failure_result=lambda answer: answer.status_code >= 500
    )
    health = Health(max_age=0)
    health.add("it", ScriptedProbe(None, {"queued": 1}, is_async=is_async), breaker=breaker)
    for _ in range(3):
        assert (await soon(health.run())).ok
    snapshot = breaker.snapshot()
    assert (snapshot.successes, snapshot.failures, str(snapshot.state)) == (3, 0, "closed")


async def test_who_makes_a_trial_that_fails_is_not_told_the_verdict_of_before() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(consecutive_failures=2, open_for=5, backoff=1, jitter=0)
    health = Health(max_age=0, clock=clock)
    health.add("it", ScriptedProbe(None, GONE), breaker=breaker, failure_threshold=10)
    seen = []
    for _ in range(6):
        result = (await soon(health.run())).results["it"]
        seen.append((str(breaker.state), str(result.status)))
        clock.advance(5)
    assert seen == [("closed", "okay")] * 2 + [("open", "failed")] * 4


async def test_a_check_that_is_refused_says_why_its_circuit_is_open_and_nothing_else() -> None:
    breaker = CircuitBreaker(consecutive_failures=1, open_for=PATIENCE)
    health = Health(max_age=0)
    check = health.add("it", ScriptedProbe(Degraded("slow"), GONE), breaker=breaker)
    assert (await soon(health.run())).results["it"].detail == "slow"
    with contextlib.suppress(OSError), check.guard():
        raise OSError("not the probe's own")
    assert (await soon(health.run())).results["it"].detail == ""
    breaker.reset()
    for _ in range(2):
        assert "gone" in (await soon(health.run())).results["it"].detail
    await health.aclose()


async def test_nor_does_a_threshold_hide_why_its_circuit_is_open() -> None:
    breaker = CircuitBreaker(consecutive_failures=2, open_for=PATIENCE)
    health = Health(max_age=0)
    health.add("it", ScriptedProbe(None, GONE), breaker=breaker, failure_threshold=5)
    for _ in range(4):
        result = (await soon(health.run())).results["it"]
    assert (result.reason, "gone" in result.detail) == (Reason.CIRCUIT_OPEN, True)
    await health.aclose()


async def test_a_breaker_that_breaks_down_after_the_call_fails_the_check_at_once() -> None:
    times = [0.0]  # and none for the end

    breaker = CircuitBreaker(window_calls=10, slow_call_duration=1, clock=times.pop)
    health = Health(max_age=0, deadline=PATIENCE)
    health.add("it", ScriptedProbe(), breaker=breaker, timeout=PATIENCE)
    result = (await soon(health.run())).results["it"]
    assert (result.reason, result.detail) == (Reason.FAILED, "IndexError")


async def test_a_breaker_that_can_not_be_asked_fails_the_check_from_the_first_run_on() -> None:
    def clock() -> float:
        raise RuntimeError("no time")

    breaker = CircuitBreaker(window_calls=10, slow_call_duration=1, clock=clock)
    health = Health(max_age=0)
    health.add("it", ScriptedProbe(), breaker=breaker)
    result = (await soon(health.run())).results["it"]
    assert (result.reason, result.detail) == (Reason.FAILED, "RuntimeError: no time")


async def test_one_of_several_trials_is_no_pass_yet() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(consecutive_failures=1, open_for=5, jitter=0, half_open_calls=3)
    health = Health(max_age=0, clock=clock)
    check = health.add("it", ScriptedProbe(GONE, None), breaker=breaker)
    assert not (await soon(health.run())).ok
    clock.advance(5)
    for _ in range(2):
        report = await soon(health.run())
        assert report.results["it"].reason is Reason.CIRCUIT_OPEN
        assert (str(breaker.state), report.ok, check.available) == ("half_open", False, False)
        assert not health.last().ok
    assert (await soon(health.run())).ok
    assert str(breaker.state) == "closed"


@both_kinds
async def test_a_probe_that_calls_by_way_of_its_own_guard_makes_the_trial(is_async: bool) -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(consecutive_failures=2, open_for=5, jitter=0)
    health = Health(max_age=0, clock=clock)
    service = ScriptedProbe(GONE, None, is_async=is_async)
    guarded: list[Callable[[], Any]] = []

    async def ask() -> None:
        await service()

    async def probe() -> None:
        await guarded[0]()

    check = health.add("it", probe if is_async else lambda: guarded[0](), breaker=breaker)  # noqa: PLW0108 - not yet
    guard = check.guard(max_concurrent=1)
    guarded.append(guard(ask) if is_async else guard(lambda: service()))  # noqa: PLW0108 - of a function
    assert not (await soon(health.run())).ok
    assert str(breaker.state) == "open"
    with pytest.raises(DependencyUnavailable):  # the app's calls are refused as ever
        check.guard()(print)()
    clock.advance(10)
    assert (await soon(health.run())).ok
    assert str(breaker.state) == "closed"
    assert service.calls == 2
    assert (await soon(health.run())).ok, "the trial's call has given its place back"


@both_kinds
async def test_what_a_probe_leaves_behind_is_refused_as_ever(is_async: bool) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    health = Health(max_age=0)
    went_through: list[bool] = []
    go_on = threading.Event()

    def call_later() -> None:
        go_on.wait(PATIENCE)
        try:
            with check.guard():
                went_through.append(True)
        except DependencyUnavailable:
            went_through.append(False)

    async def probe() -> None:
        leave_behind()
        raise GONE

    def leave_behind() -> None:
        context = contextvars.copy_context()  # as what starts tasks, and what has callbacks, does
        left.append(InThread(lambda: context.run(call_later)))
        if not is_async:
            raise GONE

    left: list[InThread[None]] = []
    check = health.add("it", probe if is_async else leave_behind, breaker=breaker)
    await soon(health.run())
    assert str(breaker.state) == "open"
    breaker.force_open()
    go_on.set()
    await until(lambda: left[0].done)
    assert went_through == [False]
    await health.aclose()


@pytest.mark.parametrize("how", ["it is told", "by its result", "behind a fallback"])
async def test_a_trial_whose_guarded_call_has_failed_is_none_that_went_well(how: str) -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(
        consecutive_failures=1, open_for=5, jitter=0, is_failure_result=lambda code: code == 500
    )
    health = Health(max_age=0, clock=clock)
    codes = [500]

    async def probe() -> None:
        if how == "it is told":
            async with check.guard() as call:
                if codes[0] == 500:
                    call.failure()
        elif how == "by its result":
            check.guard()(lambda: codes[0])()
        else:
            check.guard(fallback=None)(lambda: 1 / (codes[0] - 500))()

    check = health.add("it", probe, breaker=breaker)
    fail(breaker)
    for opened in (2, 3):
        clock.advance(60)
        report = await soon(health.run())
        assert not report.ok
        snapshot = breaker.snapshot()
        assert (str(snapshot.state), snapshot.opened_count) == ("open", opened)
    assert "guarded call" in report.results["it"].detail
    codes[0] = 200
    clock.advance(60)
    assert (await soon(health.run())).ok
    assert str(breaker.state) == "closed"
    await health.aclose()


async def test_a_failure_that_is_stale_still_needs_its_successes() -> None:
    clock = ManualClock()
    probe = ScriptedProbe(GONE, None)
    health = Health(clock=clock)
    check = health.add("it", probe, interval=3600, timeout=1, success_threshold=3)
    async with health:
        await until(lambda: check.latest.raw is Status.FAILED)
    clock.advance(36000)
    async with health:
        await until(lambda: check.latest.raw is Status.OKAY)
        assert check.latest.reason is Reason.RECOVERING


async def test_what_is_no_exception_to_a_breaker_is_a_failure_of_a_probe() -> None:
    class Interrupted(BaseException):
        pass

    breaker = CircuitBreaker(consecutive_failures=1)
    health = Health()
    health.add("it", ScriptedProbe(Interrupted()), breaker=breaker)
    assert not (await soon(health.run())).ok
    assert str(breaker.state) == "open"


async def test_a_result_tells_how_long_its_run_took() -> None:
    health = Health()
    health.add("it", functools.partial(anyio.sleep, 0.05))
    began = time.monotonic()
    result = (await soon(health.run())).results["it"]
    assert 0.04 < result.duration <= time.monotonic() - began


async def test_an_error_that_cannot_be_told_is_told_by_its_type() -> None:
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    health = Health()
    health.add("it", ScriptedProbe(UnspeakableError()))
    result = (await soon(health.run())).results["it"]
    assert (result.reason, result.detail) == (Reason.FAILED, "UnspeakableError")


async def test_an_awaitable_that_is_no_coroutine_is_awaited() -> None:
    class Answer:
        def __await__(self) -> Any:
            yield from anyio.sleep(0.01).__await__()
            return {"n": 1}

    health = Health()
    health.add("sync", lambda: Answer())  # noqa: PLW0108 - a class is refused
    probe = functools.partial(Answer)
    probe.is_async = True  # type: ignore[attr-defined]
    health.add("async", probe)
    report = await soon(health.run())
    assert [dict(result.measurements) for result in report.results.values()] == [{"n": 1}] * 2


async def test_a_probe_may_use_all_that_its_loop_offers() -> None:
    async def child(found: list[int]) -> None:
        await anyio.sleep(0.001)
        found.append(1)

    async def probe() -> dict[str, int]:
        found: list[int] = []
        async with anyio.create_task_group() as group:
            group.start_soon(child, found)
            group.start_soon(child, found)
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        try:
            with anyio.fail_after(0.01):
                await anyio.sleep_forever()
        except TimeoutError:
            found.append(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep_forever()
        found.append(await anyio.to_thread.run_sync(lambda: 1))
        return {"n": sum(found)}

    health = Health()
    health.add("it", probe)
    result = await one(health)
    assert result.measurements == {"n": 4}, result.detail


# What belongs to the app stays the app's


async def test_a_run_sees_no_context_of_a_request_and_leaves_none() -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    seen = []

    def look() -> None:
        seen.append(request.get())
        request.set("the probe's")

    async def look_async() -> None:
        look()

    def look_both() -> Awaitable[None]:
        look()
        return look_async()

    health = Health(max_age=0)
    health.add("async", look_async)
    health.add("sync", look)
    health.add("both", look_both)
    request.set("a user's")
    for _ in range(3):
        assert (await soon(health.run())).ok
        assert health.run_sync().ok
    assert set(seen) == {"none"}
    assert len(seen) == 24
    assert request.get() == "a user's"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_default_executor_is_never_touched() -> None:
    loop = asyncio.get_running_loop()
    used = []

    def submit(*args: Any, **kwargs: Any) -> Any:
        used.append(args)
        raise AssertionError("the app's own executor")

    loop.run_in_executor = submit  # type: ignore[assignment]
    health = Health(max_age=0)
    hangs = ScriptedProbe(is_async=False)
    hangs.hang()
    health.add("hangs", hangs, timeout=BRIEF)
    health.add("quick", ScriptedProbe(is_async=False))
    for _ in range(5):
        await soon(health.run())
    await health.aclose()
    hangs.release()
    assert used == []


async def test_the_default_limiter_is_never_touched() -> None:
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    health = Health(max_age=0)
    probes = [ScriptedProbe(is_async=False) for _ in range(3)]
    for number, probe in enumerate(probes):
        probe.hang()
        health.add(f"hangs-{number}", probe, timeout=BRIEF)
    for _ in range(3):
        await soon(health.run())
    assert limiter.borrowed_tokens == 0
    # And the app's own use of threads goes on while three probes hang.
    assert await soon(anyio.to_thread.run_sync(lambda: 5)) == 5
    for probe in probes:
        probe.release()


@both_kinds
async def test_no_thread_keeps_the_process_from_exiting(is_async: bool) -> None:
    hangs = ScriptedProbe(is_async=is_async)
    hangs.hang()
    health = Health()
    health.add("hangs", hangs, timeout=BRIEF)
    InThread(health.run_sync).result()
    await soon(health.run())
    ours = [thread for thread in threading.enumerate() if "healthmw" in thread.name]
    assert ours
    assert all(thread.daemon for thread in ours)
    hangs.release()


async def test_when_there_is_no_thread_to_be_had_the_check_fails_and_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_more(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    taken = ScriptedProbe(is_async=False)
    taken.hang()
    health = Health(max_age=0)
    health.add("it", ScriptedProbe(is_async=False))
    health.add("other", ScriptedProbe())
    hold = Health()
    # So that no idle thread is left to do it.
    for number in range(threading.active_count()):
        hold.add(f"c{number}", taken, timeout=PATIENCE)
    holding = InThread(hold.run_sync)
    await until(lambda: taken.running == len(hold.checks))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        report = await soon(health.run())
        assert report.results["it"].reason is Reason.FAILED
        assert report.results["it"].detail == "RuntimeError: can't start new thread"
        assert report.results["other"].ok
    assert (await soon(health.run())).ok
    taken.release()
    holding.result()


async def test_a_log_that_breaks_down_takes_nothing_with_it(
    breakdowns: list[BaseException],
) -> None:
    health = Health(max_age=0)
    health.add("sync", ScriptedProbe(GONE, is_async=False))
    health.add("async", ScriptedProbe(GONE))
    with broken_log():
        report = await soon(health.run())
    assert [result.reason for result in report.results.values()] == [Reason.FAILED] * 2
    assert not (await soon(health.run())).ok
    await until(lambda: len(breakdowns) == 2)
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


@both_kinds
@pytest.mark.parametrize("guarded", [False, True])
async def test_a_log_that_breaks_down_over_a_timeout_takes_nothing_with_it(
    breakdowns: list[BaseException], is_async: bool, guarded: bool
) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.01) if guarded else None
    probe = ScriptedProbe(is_async=is_async)
    probe.hang()
    health = Health(max_age=0)
    health.add("it", probe, timeout=BRIEF, breaker=breaker)
    with broken_log():
        report = await soon(health.run())
    assert report.results["it"].reason is Reason.TIMEOUT
    probe.release()
    await until(lambda: health.run_sync().ok)
    await health.aclose()
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


async def test_what_is_printed_of_a_breakdown_has_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the probe's own error with it, which was to be logged."""
    dsn = ConnectionError("can't reach postgresql://shop:hunter2@db/shop")
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    health = Health()
    health.add("sync", ScriptedProbe(dsn, is_async=False))
    health.add("async", ScriptedProbe(dsn))
    printed = ""

    def all_printed() -> bool:
        nonlocal printed
        printed += capsys.readouterr().err
        return printed.count("ZeroDivisionError: a filter of the user's own") == 2

    with broken_log():
        await soon(health.run())
        await until(all_printed)
    assert printed.count("ConnectionError: can't reach postgresql://shop:***@db/shop") == 2
    assert "hunter2" not in printed


def test_where_no_loop_runs_it_is_said_what_to_call() -> None:
    health = Health()
    health.add("it", lambda: None)
    report = health.run()
    with pytest.raises(RuntimeError, match=r"run_sync\(\)"):
        report.send(None)


def test_a_half_imported_trio_is_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health()
    health.add("it", ScriptedProbe())
    for name in ("trio", "trio.lowlevel"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert asyncio.run(health.run()).ok


def test_a_probe_that_is_dropped_with_its_loop_is_closed() -> None:
    begun: list[int] = []
    closed: list[int] = []

    async def probe() -> None:
        number = len(begun)
        begun.append(number)
        if number:
            return
        try:
            await asyncio.Event().wait()
        finally:
            closed.append(number)

    health = Health(max_age=0)
    health.add("it", probe, timeout=PATIENCE)
    loop = asyncio.new_event_loop()
    reader = loop.create_task(health.run())
    loop.run_until_complete(until(lambda: begun))
    reader.cancel()
    loop.run_until_complete(asyncio.wait([reader]))
    loop.close()  # without a word to the run
    del loop, reader
    assert asyncio.run(health.run()).ok
    gc.collect()
    assert (begun, closed) == ([0, 1], [0])


def test_what_a_trial_s_probe_says_to_ignore_is_ignored() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(consecutive_failures=1, open_for=5, jitter=0)
    health = Health(max_age=0, clock=clock)

    def probe() -> None:
        with contextlib.suppress(ConnectionError), check.guard() as call:
            call.ignored()
            raise GONE

    check = health.add("it", probe, breaker=breaker)
    fail(breaker)
    clock.advance(60)
    assert health.run_sync().ok
    assert str(breaker.state) == "closed"


@both_kinds
async def test_a_run_that_can_not_be_recorded_is_no_pass(
    is_async: bool, breakdowns: list[BaseException]
) -> None:
    now = ManualClock()
    breaks = False

    def clock() -> float:
        nonlocal breaks
        if breaks:
            breaks = False
            raise ZeroDivisionError("a clock of the user's own")
        return now()

    health = Health(max_age=1, clock=clock)
    probe = ScriptedProbe(None, GONE, is_async=is_async)

    def fails() -> Any:
        nonlocal breaks
        breaks = probe.calls > 0
        return probe()

    health.add("it", fails)
    assert (await soon(health.run())).ok
    now.advance(2)
    report = await soon(health.run())
    assert (report.status, report.code) == (Status.UNKNOWN, 503)
    await until(lambda: breakdowns)
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


def test_a_run_that_ctrl_c_keeps_from_beginning_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_call: object) -> None:
        raise KeyboardInterrupt

    health = Health(max_age=0)
    health.add("it", lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr("healthmw._runner.THREADS.start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            health.run_sync()
    assert health.run_sync().ok


def test_a_run_on_a_loop_that_stopped_is_not_waited_for() -> None:
    health = Health(max_age=0)
    probe = ScriptedProbe()
    probe.hang()
    health.add("it", probe, timeout=BRIEF)

    async def impatient() -> None:
        asking = asyncio.create_task(health.run())
        await until(lambda: probe.running)
        asking.cancel()

    loop = asyncio.new_event_loop()
    with contextlib.closing(loop):
        loop.run_until_complete(impatient())  # and it is neither closed nor, yet, run again
        probe.release()
        InThread(lambda: until_sync(lambda: health.run_sync().ok)).result()
        loop.run_until_complete(asyncio.sleep(BRIEF))


async def test_a_breakers_listener_runs_under_no_lock() -> None:
    """It may ask for any verdict itself, and in the meantime others have theirs."""
    clock = ManualClock()
    breaker = CircuitBreaker(consecutive_failures=1, jitter=0)
    health = Health(clock=clock, max_age=0)
    health.add("it", lambda: None, breaker=breaker, per_hour=2)
    health.add("other", lambda: None)
    assert (await soon(health.run())).ok
    fail(breaker, 1)
    others: list[bool] = []

    def listener(_event: object) -> None:
        health.run_sync("it", fresh=True)
        others.append(InThread(lambda: health.run_sync("other")).result().ok)

    breaker.subscribe(listener)
    clock.advance(6)
    lost = breaker.try_acquire()  # a trial of which nobody tells
    assert lost is not None
    clock.advance(31)
    assert InThread(health.last).result().status is Status.FAILED
    assert InThread(lambda: health.run_sync("it", fresh=True)).result().status is Status.FAILED
    assert others
    assert all(others)


async def test_a_listener_that_hangs_keeps_no_open_circuit_from_being_seen() -> None:
    breaker = CircuitBreaker(consecutive_failures=1, open_for=PATIENCE)
    released = threading.Event()
    breaker.subscribe(lambda _event: released.wait(PATIENCE))
    apps = [Health(max_age=PATIENCE), Health(max_age=PATIENCE)]
    for health in apps:
        health.add("it", lambda: None, breaker=breaker)
        assert (await soon(health.run())).ok
    opening = InThread(lambda: fail(breaker, 1))
    await until(lambda: not breaker.available)
    for health in apps:
        report = await soon(health.run())
        assert (report.code, report.results["it"].reason) == (503, Reason.CIRCUIT_OPEN)
    released.set()
    opening.result()


async def test_a_probe_with_children_that_is_cancelled_has_not_failed() -> None:
    breaker = CircuitBreaker()
    slow = False

    async def probe() -> None:
        if slow:
            async with anyio.create_task_group() as group:
                for _ in range(2):
                    group.start_soon(anyio.sleep, PATIENCE)

    health = Health(max_age=0)
    check = health.add("it", probe, breaker=breaker, timeout=PATIENCE)
    async with health:
        assert (await soon(health.run())).ok
        slow = True
        async with anyio.create_task_group() as group:
            reports: list[Any] = []

            async def read() -> None:
                reports.append(await health.run())

            group.start_soon(read)
            await anyio.sleep(BRIEF)
            await soon(health.aclose())
    assert reports[0].status is Status.UNKNOWN
    assert check.latest.ok
    assert breaker.snapshot().total_failures == 0


async def test_a_result_that_comes_in_between_is_not_taken_for_a_younger_one() -> None:
    """What was read first must not live on as long as what came after it."""
    clock = ManualClock()
    health = Health(clock=clock, max_age=1)
    check = health.add("it", ScriptedProbe(None, GONE))
    assert (await soon(health.run())).ok
    clock.advance(2)

    class Meanwhile(type(check)):  # type: ignore[misc]
        __slots__ = ()

        @property
        def failure_max_age(self) -> float | None:
            check.__class__ = kind
            before = check.latest
            InThread(lambda: health.run_sync("it"))
            until_sync(lambda: check.latest is not before)
            return None

        @failure_max_age.setter
        def failure_max_age(self, value: float | None) -> None: ...

    kind, check.__class__ = check.__class__, Meanwhile
    standing = health._reports.standing("startup")
    assert standing is None or not standing.ok


def test_a_breaker_that_lives_on_keeps_no_health() -> None:
    breaker = CircuitBreaker()
    health = Health()
    health.add("it", lambda: None, breaker=breaker)
    gone = weakref.ref(health)
    del health
    gc.collect()
    assert gone() is None
    fail(breaker, 5)
    assert not breaker.available


async def test_the_name_of_a_measurement_is_scrubbed_too() -> None:
    health = Health()
    health.add("it", lambda: {"redis://:hunter2@cache": 3})
    assert dict((await one(health)).measurements) == {"redis://:***@cache": 3}
