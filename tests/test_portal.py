"""Callers without an event loop: threads, and the loop that the process keeps for them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from healthmw import Degraded, Health, Reason, Status
from healthmw.testing import ManualClock, ScriptedProbe
from tests.waiting import PATIENCE, InThread, until, until_sync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

both_kinds = pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])

GONE = ConnectionError("gone")


@both_kinds
@pytest.mark.parametrize(
    ("outcome", "status"),
    [(None, Status.OKAY), (Degraded(), Status.DEGRADED), (GONE, Status.FAILED)],
)
def test_a_thread_gets_the_report_that_a_task_would(
    outcome: Degraded | BaseException | None, status: Status, is_async: bool
) -> None:
    clock = ManualClock()
    probe = ScriptedProbe(outcome, is_async=is_async)
    health = Health(release="v42", clock=clock)
    health.add("it", probe)
    report = health.run_sync()
    assert (report.group, report.status, report.release) == ("ready", status, "v42")
    assert health.run_sync() is report
    assert asyncio.run(health.run()) is report
    assert probe.calls == 1
    clock.advance(1)
    assert health.run_sync("it").status is status
    assert probe.calls == 2


@both_kinds
def test_fifty_threads_share_one_run(is_async: bool) -> None:
    probe = ScriptedProbe(is_async=is_async)
    health = Health(max_age=3600)
    health.add("it", probe, timeout=PATIENCE)
    probe.hang()
    before = threading.active_count()
    threads = [InThread(health.run_sync) for _ in range(50)]
    until_sync(lambda: probe.running)
    assert threading.active_count() <= before + 50 + 2  # the readers, the probe's and the portal's
    probe.release()
    assert all(thread.result().ok for thread in threads)
    assert probe.calls == 1


def test_what_probes_hold_lives_on_between_calls() -> None:
    loops = []
    threads = []

    async def probe() -> None:
        loops.append(asyncio.get_running_loop())
        threads.append(threading.current_thread())

    for _ in range(2):
        health = Health(max_age=0)
        health.add("it", probe)
        for _ in range(2):
            assert InThread(health.run_sync).result().ok
    assert len(set(map(id, loops))) == 1  # one for the process
    assert threads[0].daemon
    assert loops[0].is_running()


def test_from_within_a_loop_it_answers_too() -> None:
    # It blocks that loop, which is why there is `await run()`; but it must not hang.
    async def app() -> Status:
        return health.run_sync().status

    health = Health()
    health.add("async", ScriptedProbe())
    health.add("sync", ScriptedProbe(is_async=False))
    assert InThread(lambda: asyncio.run(app())).result() is Status.OKAY


def test_a_portal_that_is_blocked_holds_nobody_up() -> None:
    released = threading.Event()

    async def blocks() -> None:
        released.wait()

    blocked, fine = Health(max_age=0), Health(max_age=0)
    blocked.add("blocks", blocks, timeout=0.05)
    blocked.add("sync", ScriptedProbe(is_async=False))
    fine.add("sync", ScriptedProbe(is_async=False))
    behind = ScriptedProbe()
    fine.add("async", behind, timeout=0.05, critical=False)
    report = InThread(blocked.run_sync).result()
    assert report.results["blocks"].reason is Reason.TIMEOUT
    assert report.results["sync"].ok
    until_sync(lambda: blocked.run_sync().results["blocks"].reason is Reason.STUCK)
    for _ in range(5):
        report = InThread(fine.run_sync).result()
        assert report.results["sync"].ok
        assert report.results["async"].status is Status.FAILED
        assert report.status is Status.DEGRADED
    assert behind.calls == 0
    released.set()
    until_sync(lambda: blocked.run_sync("sync").ok and fine.run_sync().status is Status.OKAY)


def test_a_thread_waits_no_longer_than_the_deadline() -> None:
    probe = ScriptedProbe()
    probe.hang()
    health = Health(deadline=0.0512)
    health.add("it", probe, timeout=PATIENCE)
    before = time.monotonic()
    report = InThread(health.run_sync).result()
    assert report.results["it"].detail == "not back within the group's deadline of 0.05 s"
    assert time.monotonic() - before < PATIENCE / 2
    probe.release()


def test_an_async_generator_that_outlives_trio_gets_an_answer() -> None:
    # At the very end of a trio run no task can be begun any more, and what is left of the program
    # still may ask.
    import trio

    health = Health(max_age=0)
    health.add("async", ScriptedProbe(), timeout=0.1)
    reports = []

    async def outlives() -> AsyncIterator[None]:
        try:
            yield
        finally:
            reports.append(await health.run("async"))
            thread = InThread(lambda: health.run_sync("async", fresh=True))
            with trio.CancelScope(shield=True):
                await until(lambda: thread.done)
            with contextlib.suppress(RuntimeError):
                reports.append(thread.result())

    async def app() -> None:
        health.start()
        agen = outlives()
        kept.append(agen)
        await anext(agen)

    kept: list[AsyncIterator[None]] = []
    trio.run(app)
    assert [report.ok for report in reports] == [False, False]
    assert "RuntimeError" in reports[0].results["async"].detail
    assert reports[1].results["async"].reason is Reason.TIMEOUT
    assert health.run_sync().ok
