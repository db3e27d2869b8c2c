"""Single flight: who asks while a check runs shares that run, and hurts nobody by leaving."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from healthmw import CircuitBreaker, Health, Reason, Status
from healthmw.testing import ManualClock, ScriptedProbe
from tests.waiting import PATIENCE, InThread, soon, until, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from healthmw import Report, Result

anyio_too = pytest.mark.anyio
both_kinds = pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
loops = pytest.mark.parametrize("other", ["asyncio", "trio"])

GONE = ConnectionError("gone")


async def until_next_turn(condition: Callable[[], object]) -> None:
    """Wait until `condition` is true, and go on in the same turn of the loop or in the next."""
    for _ in range(50):
        if condition():
            return
        await checkpoint()
    raise AssertionError("it did not come true within 50 turns")


def reading(health: Health) -> tuple[list[Report], Callable[[], Coroutine[Any, Any, None]]]:
    """Return a list, and what reads a report and adds it there."""
    reports: list[Report] = []

    async def read() -> None:
        reports.append(await health.run())

    return reports, read


@anyio_too
@both_kinds
@pytest.mark.parametrize("fresh", [False, True])
async def test_fifty_readers_share_one_run(is_async: bool, fresh: bool) -> None:
    probe = ScriptedProbe({"run": 1}, {"run": 2}, is_async=is_async)
    health = Health(max_age=0)
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    reports: list[Report] = []

    async def read() -> None:
        reports.append(await health.run(fresh=fresh))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(read)
        await until(lambda: probe.running)
        assert reports == []
        probe.release()
    assert len(reports) == 50
    assert all(report is reports[0] for report in reports)
    assert reports[0].results["it"].measurements == {"run": 1}
    assert probe.calls == 1


@anyio_too
@pytest.mark.parametrize("wanted", [[None, ["a"]], [["a"], None], [["a"], ["b"]]], ids=str)
@pytest.mark.parametrize("fresh", [False, True])
async def test_who_wants_some_checks_shares_their_runs_and_gets_no_other(
    wanted: list[list[str] | None], fresh: bool
) -> None:
    probe = ScriptedProbe()
    health = Health(max_age=0)
    for name in ("a", "b"):
        health.add(name, probe, timeout=PATIENCE)
    probe.hang()
    found: dict[int, Report] = {}

    async def read(number: int) -> None:
        found[number] = await health.run(only=wanted[number], fresh=fresh)

    async with anyio.create_task_group() as group:
        for number in range(2):
            group.start_soon(read, number)
            await until(lambda: probe.running)
            await anyio.wait_all_tasks_blocked()
        probe.release()
    assert {number: [*report.results] for number, report in found.items()} == {
        number: only or ["a", "b"] for number, only in enumerate(wanted)
    }
    assert probe.calls == 2


@anyio_too
@both_kinds
@pytest.mark.parametrize("leaves", [[0], [1], [2], [0, 1], [0, 1, 2]], ids=str)
async def test_a_reader_who_is_cancelled_cancels_nothing(is_async: bool, leaves: list[int]) -> None:
    probe = ScriptedProbe(is_async=is_async)
    health = Health(clock=ManualClock())
    check = health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    reports: list[Report] = []
    scopes = [anyio.CancelScope() for _ in range(3)]

    async def read(scope: anyio.CancelScope) -> None:
        with scope:
            reports.append(await health.run())

    async with anyio.create_task_group() as group:
        for scope in scopes:  # the first one begins the run
            group.start_soon(read, scope)
        await until(lambda: probe.running)
        for number in leaves:
            scopes[number].cancel()
        await until(lambda: all(scopes[number].cancelled_caught for number in leaves))
        assert probe.running == 1
        probe.release()
    assert len(reports) == 3 - len(leaves)
    # Even where all have left, what was found is remembered.
    await until(lambda: check.status is Status.OKAY)
    assert (await health.run()).ok
    assert probe.calls == 1


@anyio_too
async def test_cancellation_of_a_reader_is_still_cancellation() -> None:
    probe = ScriptedProbe()
    probe.hang()
    health = Health()
    health.add("it", probe)
    with anyio.move_on_after(0.01) as scope:
        await health.run()
        pytest.fail("it was not cancelled")
    assert scope.cancelled_caught
    probe.release()


@anyio_too
@both_kinds
@loops
async def test_loops_share_a_run(is_async: bool, other: str) -> None:
    probe = ScriptedProbe({"run": 1}, is_async=is_async)
    health = Health(clock=ManualClock())
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    reports, read = reading(health)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await until(lambda: probe.running)
        there = InThread(lambda: anyio.run(read, backend=other))
        thread = InThread(lambda: reports.append(health.run_sync()))
        probe.release()
        await until(lambda: there.done and thread.done)
        there.result()
        thread.result()
    assert [dict(report.results["it"].measurements) for report in reports] == [{"run": 1}] * 3
    assert probe.calls == 1


@anyio_too
@both_kinds
async def test_many_loops_and_threads_at_once(is_async: bool) -> None:
    probe = ScriptedProbe(is_async=is_async)
    health = Health(max_age=3600)
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    calls: list[Callable[[], Report]] = [
        health.run_sync,
        lambda: anyio.run(health.run, backend="asyncio"),
        lambda: anyio.run(health.run, backend="trio"),
    ]
    threads = [InThread(calls[number % 3]) for number in range(24)]
    await until(lambda: probe.running)
    probe.release()
    await until(lambda: all(thread.done for thread in threads))
    assert all(thread.result().ok for thread in threads)
    assert probe.calls == 1


class BusyClock(ManualClock):
    """A clock that does something, once, when it is looked at."""

    def __init__(self) -> None:
        super().__init__(1000.0)
        self.meanwhile: Callable[[], object] | None = None

    def __call__(self) -> float:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().__call__()


@both_kinds
@pytest.mark.parametrize("max_age", [1.0, 0.0])
def test_a_result_that_comes_in_while_a_reader_looks_needs_no_second_run(
    is_async: bool, max_age: float
) -> None:
    clock = BusyClock()
    probe = ScriptedProbe(is_async=is_async)
    health = Health(clock=clock, max_age=max_age)
    health.add("it", probe)
    # Another reader runs the check just when this one has found that there is no result yet.
    clock.meanwhile = lambda: InThread(health.run_sync).result()
    assert health.run_sync().ok
    assert probe.calls == 1


@both_kinds
def test_a_run_that_is_about_to_tell_its_result_is_still_the_one_to_share(is_async: bool) -> None:
    probe = ScriptedProbe(is_async=is_async)
    health = Health(max_age=3600)
    readers: list[InThread[Report]] = []

    class Measured(dict[str, int]):
        def items(self) -> Any:
            readers.append(InThread(health.run_sync))
            threading.Event().wait(0.1)  # were it to begin a run of its own, it would have by now
            return super().items()

    probe.play(Measured(queued=1))
    health.add("it", probe)
    assert health.run_sync().ok
    assert readers[0].result().ok
    assert probe.calls == 1


@both_kinds
def test_fifty_threads_share_the_quickest_of_runs(is_async: bool) -> None:
    barrier = threading.Barrier(50)
    probe = ScriptedProbe(is_async=is_async)
    health = Health(max_age=3600)
    health.add("it", probe)

    def read() -> Report:
        barrier.wait()
        return health.run_sync()

    threads = [InThread(read) for _ in range(50)]
    assert all(thread.result().ok for thread in threads)
    assert probe.calls == 1


# Loops come and go; a check outlives them


def run_on(backend: str, main: Callable[[], Any]) -> None:
    anyio.run(main, backend=backend)


@loops
@pytest.mark.parametrize("after", ["asyncio", "trio"])
def test_a_loop_that_ends_during_a_run_leaves_no_trace(other: str, after: str) -> None:
    probe = ScriptedProbe()
    health = Health(max_age=0)
    health.add("it", probe)
    probe.hang()

    async def leave_in_the_middle() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(health.run)
            await until(lambda: probe.running)
            group.cancel_scope.cancel()

    run_on(other, leave_in_the_middle)
    assert probe.running == 0
    probe.release()

    async def again() -> None:
        assert (await health.run()).ok

    run_on(after, again)
    assert probe.calls == 2


@loops
def test_a_loop_that_ends_before_a_run_has_made_its_first_step(other: str) -> None:
    probe = ScriptedProbe()
    health = Health(max_age=0)
    health.add("it", probe)

    async def leave_at_once() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await health.run()

    async def again() -> None:
        assert (await health.run()).ok

    run_on(other, leave_at_once)
    run_on(other, again)


def test_a_loop_that_is_closed_in_the_middle_of_a_run() -> None:
    probe = ScriptedProbe()
    health = Health(max_age=0)
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    loop = asyncio.new_event_loop()
    reader = loop.create_task(health.run())
    loop.run_until_complete(until(lambda: probe.running))
    reader.cancel()
    loop.run_until_complete(asyncio.wait([reader]))
    loop.close()  # without a word to the tasks that are left
    probe.release()
    assert InThread(health.run_sync).result().ok
    assert InThread(lambda: asyncio.run(health.run())).result().ok


@loops
def test_who_waits_elsewhere_for_a_run_whose_loop_ends_is_told_nothing_old(other: str) -> None:
    clock = ManualClock()
    probe = ScriptedProbe()
    health = Health(clock=clock)
    health.add("it", probe, timeout=PATIENCE)

    async def ask() -> None:
        assert (await health.run()).ok

    run_on(other, ask)
    clock.advance(3600)
    probe.hang()
    elsewhere: list[InThread[Report]] = []

    async def leave_in_the_middle() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(health.run)
            await until(lambda: probe.running)
            elsewhere.append(InThread(health.run_sync))
            await anyio.sleep(0.05)  # for it to have joined; if it has not, it runs the check anew
            group.cancel_scope.cancel()

    run_on(other, leave_in_the_middle)
    probe.release()
    report = elsewhere[0].result()
    result = report.results["it"]
    if probe.calls == 2:
        assert (result.status, result.reason) == (Status.UNKNOWN, Reason.STALE)
    assert (result.raw, report.ok) in {(Status.OKAY, False), (Status.OKAY, True)}
    assert health.run_sync().ok


def test_readers_who_went_with_their_loops_are_not_missed() -> None:
    probe = ScriptedProbe(is_async=False)
    health = Health(max_age=3600)
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    for _ in range(5):
        loop = asyncio.new_event_loop()
        reader = loop.create_task(health.run())
        loop.run_until_complete(until(lambda: probe.running))
        loop.close()  # in the middle of the waiting
        # Or asyncio would complain of it when it is collected.
        reader._log_destroy_pending = False  # type: ignore[attr-defined]
    other = InThread(health.run_sync)
    probe.release()
    assert other.result().ok
    assert probe.calls == 1


# Who comes while others wait


@anyio_too
@both_kinds
async def test_who_comes_after_a_result_gets_a_newer_one(is_async: bool) -> None:
    # The quick one is async: what a thread has done is not yet a result, and who asks then joins.
    slow, quick = ScriptedProbe(is_async=is_async), ScriptedProbe()
    health = Health(max_age=0, clock=ManualClock())
    health.add("slow", slow, timeout=PATIENCE)
    health.add("quick", quick, timeout=PATIENCE)
    slow.hang()
    reports, read = reading(health)

    async with anyio.create_task_group() as group:
        for runs in (1, 2, 3):
            group.start_soon(read)
            await until(lambda: quick.calls == runs and not quick.running)  # noqa: B023 - it is over before the next
        assert slow.calls == 1
        slow.release()
    assert [report.status for report in reports] == [Status.OKAY] * 3


@anyio_too
@pytest.mark.parametrize("checks", [1, 3])
async def test_who_comes_while_what_came_back_is_being_told_shares_it(checks: int) -> None:
    probes = [ScriptedProbe() for _ in range(checks)]
    health = Health(max_age=0, clock=ManualClock())
    for number, probe in enumerate(probes):
        health.add(f"it-{number}", probe, timeout=PATIENCE)
        probe.hang()
    reports, read = reading(health)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await until(lambda: all(probe.running for probe in probes))
        await anyio.sleep(0.02)  # it is not how long a run took that counts
        for probe in probes:
            probe.release()
        await until_next_turn(lambda: not any(probe.running for probe in probes))
        assert reports == []
        later = await health.run()
    assert [probe.calls for probe in probes] == [1] * checks
    assert reports == [later]
    # An answer that was given is no news.
    await health.run()
    assert [probe.calls for probe in probes] == [2] * checks


@anyio_too
async def test_what_came_back_before_the_loop_was_held_up_is_shared_with_nobody() -> None:
    probe = ScriptedProbe({"run": 1}, {"run": 2})
    health = Health(max_age=0, clock=ManualClock())
    health.add("it", probe, timeout=PATIENCE)
    reports, read = reading(health)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await until_next_turn(lambda: probe.calls and not probe.running)
        assert reports == []
        time.sleep(0.05)  # noqa: ASYNC251 - it is what holds up the loop
        newer = await health.run()
    assert newer.results["it"].measurements == {"run": 2}
    assert reports[0].results["it"].measurements == {"run": 1}


@anyio_too
@both_kinds
async def test_who_comes_when_a_result_has_grown_too_old_gets_a_newer_one(is_async: bool) -> None:
    slow, kept = ScriptedProbe(is_async=is_async), ScriptedProbe(is_async=is_async)
    clock = ManualClock()
    health = Health(max_age=10, clock=clock)
    health.add("kept", kept, timeout=PATIENCE)
    assert (await health.run()).ok
    health.add("slow", slow, timeout=PATIENCE)
    slow.hang()
    async with anyio.create_task_group() as group:
        group.start_soon(health.run)
        await until(lambda: slow.running)
        clock.advance(11)
        group.start_soon(health.run)
        await until(lambda: kept.calls == 2)
        slow.release()
    assert slow.calls == 1


@anyio_too
@both_kinds
async def test_who_comes_after_a_check_was_added_has_it_run(is_async: bool) -> None:
    probe, added = (ScriptedProbe(is_async=is_async) for _ in range(2))
    health = Health(max_age=0)
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    reports, read = reading(health)

    async with anyio.create_task_group() as group:
        group.start_soon(health.run)
        await until(lambda: probe.running)
        health.add("added", added, timeout=PATIENCE)
        group.start_soon(read)
        await until(lambda: added.calls)
        probe.release()
    assert reports[0].results["added"].status is Status.OKAY
    assert probe.calls == 1


@anyio_too
@both_kinds
async def test_who_comes_after_the_drain_began_waits_for_nothing(is_async: bool) -> None:
    probe = ScriptedProbe(is_async=is_async)
    health = Health(max_age=0, deadline=2 * PATIENCE)
    health.add("it", probe, timeout=2 * PATIENCE)
    probe.hang()

    async with anyio.create_task_group() as group:
        group.start_soon(health.run)
        await until(lambda: probe.running)
        health.drain()
        report = await soon(health.run())
        assert probe.running
        probe.release()
    assert (report.status, report.reason) == (Status.FAILED, Reason.DRAINING)


@anyio_too
@both_kinds
async def test_who_comes_later_has_a_deadline_of_his_own(is_async: bool) -> None:
    probe = ScriptedProbe(is_async=is_async)
    health = Health(max_age=0, deadline=0.1)
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    reports, read = reading(health)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await until(lambda: probe.running)
        health.deadline = PATIENCE
        group.start_soon(read)
        await until(lambda: reports)
        assert reports[0].results["it"].reason is Reason.TIMEOUT
        probe.release()
    assert [report.status for report in reports] == [Status.FAILED, Status.OKAY]
    assert probe.calls == 1


@anyio_too
@both_kinds
async def test_where_the_first_leaves_the_others_still_watch_the_time(is_async: bool) -> None:
    probe = ScriptedProbe(is_async=is_async)
    health = Health(max_age=0)
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    reports, read = reading(health)

    async with anyio.create_task_group() as group:
        first = anyio.CancelScope()

        async def read_first() -> None:
            with first:
                await health.run()

        group.start_soon(read_first)
        await until(lambda: probe.running)
        health.deadline = 0.1
        group.start_soon(read)
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        await until(lambda: len(reports) == 2)
        assert [report.results["it"].reason for report in reports] == [Reason.TIMEOUT] * 2
        probe.release()


# The group's deadline


@anyio_too
@both_kinds
async def test_the_answer_leaves_at_the_deadline(is_async: bool) -> None:
    slow, quick = ScriptedProbe(is_async=is_async), ScriptedProbe({"n": 1}, is_async=is_async)
    health = Health(deadline=0.1, clock=ManualClock())
    check = health.add("slow", slow, timeout=PATIENCE, critical=False)
    health.add("quick", quick)
    slow.hang()
    for report in (await soon(health.run()), InThread(health.run_sync).result()):
        late = report.results["slow"]
        assert (late.status, late.raw, late.reason) == (
            Status.FAILED,
            Status.FAILED,
            Reason.TIMEOUT,
        )
        assert late.detail == "not back within the group's deadline of 0.1 s"
        assert 0.09 <= late.duration < PATIENCE
        assert report.results["quick"].measurements == {"n": 1}
        assert report.status is Status.DEGRADED
    # It has not failed, it is only late: nobody holds that against it later.
    assert (slow.calls, slow.running, quick.calls) == (1, 1, 1)
    assert check.status is Status.UNKNOWN
    slow.release()
    await until(lambda: check.status is Status.OKAY)
    assert (await health.run()).status is Status.OKAY
    assert slow.calls == 1


@anyio_too
@both_kinds
async def test_a_check_that_hangs_holds_up_nobody_who_has_not_to_wait_for_it(
    is_async: bool,
) -> None:
    clock = ManualClock()
    hangs, fine, alive = ScriptedProbe(is_async=is_async), ScriptedProbe(), ScriptedProbe()
    health = Health(clock=clock, deadline=PATIENCE)
    check = health.add("hangs", hangs, timeout=PATIENCE)
    health.add("fine", fine, max_age=0)
    health.add("alive", alive, groups=["live"], max_age=0)
    assert (await health.run()).ok
    hangs.hang()
    clock.advance(2)
    async with anyio.create_task_group() as group:
        group.start_soon(health.run)
        await until(lambda: hangs.running)
        for name in ("fine", "live"):
            assert (await health.run(name)).ok
            assert (await anyio.to_thread.run_sync(health.run_sync, name)).ok
        assert health.last().ok
        assert check.available
        assert check.guard()(lambda: "called")() == "called"
        assert hangs.running
        hangs.release()
    assert hangs.calls == 2


@anyio_too
async def test_checks_of_a_group_run_at_once() -> None:
    health = Health()
    probes = [ScriptedProbe(is_async=number % 2 == 0) for number in range(20)]
    for number, probe in enumerate(probes):
        probe.hang()
        health.add(f"check-{number}", probe, timeout=PATIENCE)
    async with anyio.create_task_group() as group:
        group.start_soon(health.run)
        await until(lambda: all(probe.running for probe in probes))
        for probe in probes:
            probe.release()
    assert (await health.run()).ok
    assert [probe.calls for probe in probes] == [1] * 20


@anyio_too
async def test_who_has_left_is_forgotten() -> None:
    probe = ScriptedProbe()
    health = Health(deadline=0.01)
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    for _ in range(3):
        await soon(health.run())
        InThread(health.run_sync).result()
    # White-box: a crowd that asks after a slow check must not pile up until it comes back.
    under_way = health._runners["it"].under_way
    assert under_way is not None
    assert len(under_way._waiting) == 0
    probe.release()


def test_a_thread_waits_for_what_another_began() -> None:
    probe = ScriptedProbe(is_async=False)
    health = Health()
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    first = InThread(health.run_sync)
    until_sync(lambda: probe.running)
    second = InThread(health.run_sync)
    probe.release()
    assert first.result().ok
    assert second.result().ok
    assert probe.calls == 1


def test_a_thread_that_waits_leaves_the_processor_to_others() -> None:
    health = Health(deadline=PATIENCE)
    health.add("it", functools.partial(time.sleep, 1.0), timeout=PATIENCE)
    began, spent = time.monotonic(), time.thread_time()
    assert health.run_sync().ok
    spent, took = time.thread_time() - spent, time.monotonic() - began
    assert spent < took / 10


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_readers_that_were_left_on_a_closed_loop_are_no_trouble_to_the_next() -> None:
    go_on = threading.Event()
    health = Health(max_age=0, deadline=PATIENCE)
    health.add("it", lambda: go_on.wait(PATIENCE), timeout=0.2)
    gone = asyncio.new_event_loop()
    left = [gone.create_task(health.run()) for _ in range(2)]
    gone.run_until_complete(asyncio.sleep(0.01))
    assert not any(task.done() for task in left)
    gone.close()

    async def main() -> list[Report]:
        return [*await asyncio.gather(health.run(), health.run())]

    try:
        reports = asyncio.run(main())
    finally:
        go_on.set()
    assert [report.results["it"].reason for report in reports] == [Reason.TIMEOUT] * 2
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what this is about
    del left, task
    gc.collect()


def test_a_trio_guest_and_its_host_read_side_by_side() -> None:
    health = Health(max_age=0, deadline=PATIENCE)
    health.add("sync", lambda: time.sleep(0.02))
    health.add("async", ScriptedProbe())
    reports: list[Report] = []

    async def guest() -> None:
        reports.extend([await health.run() for _ in range(5)])

    async def host() -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=over.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        while not over.done():
            reports.extend(await asyncio.gather(health.run(), health.run()))
        over.result().unwrap()

    asyncio.run(asyncio.wait_for(host(), PATIENCE))
    assert len(reports) > 6
    assert all(report.ok for report in reports)


@anyio_too
async def test_a_deadline_that_was_shortened_holds_for_who_joins() -> None:
    health = Health(max_age=0, deadline=PATIENCE)
    probe = ScriptedProbe()
    probe.hang()
    health.add("it", probe, timeout=PATIENCE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(health.run)
        await until(lambda: probe.running)
        health.deadline = 0.05
        with anyio.fail_after(PATIENCE / 2):
            report = await health.run()
        probe.release()
    assert report.results["it"].reason is Reason.TIMEOUT


def test_readers_that_give_up_leave_nothing_with_those_who_wait() -> None:
    health = Health(max_age=0, deadline=PATIENCE)
    probe = ScriptedProbe()
    probe.hang()
    health.add("it", probe, timeout=PATIENCE)

    def futures() -> int:
        gc.collect()
        return sum(type(one) is asyncio.Future for one in gc.get_objects())

    async def main() -> None:
        first = asyncio.ensure_future(health.run())
        await until(lambda: probe.running)
        before = futures()
        others = [asyncio.ensure_future(health.run()) for _ in range(50)]
        await asyncio.sleep(0)
        for other in others:
            other.cancel()
        await asyncio.wait(others)
        del others, other
        assert futures() < before + 25
        probe.release()
        assert (await first).ok

    asyncio.run(main())


class CutShort:
    """As of an `asyncio.run` in one thread, cut short, whose run those of others wait for."""

    def __init__(self, **policy: Any) -> None:
        self.calls = 0
        self.health = Health(max_age=0, deadline=2 * PATIENCE)
        self.check = self.health.add("it", self._probe, timeout=PATIENCE, **policy)

    async def _probe(self) -> None:
        self.calls += 1
        if self.calls == 1:
            await asyncio.sleep(PATIENCE)

    def others(
        self, read: Callable[[], Report], meanwhile: Callable[[], object] = lambda: None
    ) -> list[Result]:
        """Return what three got who were waiting; `meanwhile` is called before it is cut short."""
        cut_short = threading.Event()

        async def impatient() -> None:
            asking = asyncio.create_task(self.health.run())
            await until(cut_short.is_set)
            asking.cancel()

        first = InThread(lambda: asyncio.run(impatient()))
        until_sync(lambda: self.calls)
        run: Any = self.health._runners["it"].under_way
        others = [InThread(read) for _ in range(3)]
        until_sync(lambda: len(run._waiting) == 4)
        meanwhile()
        cut_short.set()
        first.result()
        return [other.result().results["it"] for other in others]


@pytest.mark.parametrize("reads", ["in a thread", "on a loop"])
def test_who_waits_elsewhere_is_answered_when_the_loop_of_the_run_ends(reads: str) -> None:
    it = CutShort()
    read = it.health.run_sync if reads == "in a thread" else lambda: asyncio.run(it.health.run())
    assert [result.status for result in it.others(read)] == [Status.OKAY] * 3


def test_what_is_cut_short_elsewhere_is_not_begun_again_where_it_may_not_yet() -> None:
    it = CutShort(per_hour=1)
    found = it.others(it.health.run_sync)
    assert [(result.status, result.reason) for result in found] == [
        (Status.UNKNOWN, Reason.NEVER_RUN)
    ] * 3
    assert it.calls == 1


def test_what_is_cut_short_elsewhere_has_been_asked_for_and_is_begun_again() -> None:
    """Though the app's own calls, which have gone well meanwhile, would spare the next run."""
    it = CutShort(breaker=CircuitBreaker(), passive=True)
    found = it.others(it.health.run_sync, it.check.guard()(lambda: None))
    assert [(result.status, result.detail) for result in found] == [(Status.OKAY, "")] * 3
