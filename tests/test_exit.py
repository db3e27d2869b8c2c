"""The end: of the process, and of event loops, whatever hangs."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import anyio
import pytest

from healthmw import Health, Reason
from healthmw.testing import ScriptedProbe
from tests.programs import run_program
from tests.waiting import PATIENCE, InThread, defy_cancellation, until

if TYPE_CHECKING:
    from healthmw import Report

STUCK = """
never = threading.Event()

def stuck_sync():
    never.wait()

async def stuck_async():
    released = anyio.Event()
    await defy_cancellation(released)

async def stuck_loop():
    never.wait()

health = Health(max_age=0)
"""


@pytest.mark.parametrize("end", ["", "sys.exit(0)"])
def test_a_process_with_stuck_probes_exits_at_once(end: str) -> None:
    out = run_program(
        STUCK
        + f"""
for probe in (stuck_sync, stuck_async):
    health.add(probe.__name__, probe, timeout=0.05)
health.add("background", stuck_sync, interval=0.01, timeout=0.05)
health.start()
until_sync(lambda: [r.reason for r in health.run_sync().results.values()] == [Reason.STUCK] * 3)
print("stuck")
{end}
"""
    )
    assert out == "stuck\n"


def test_a_process_whose_portal_is_blocked_exits_at_once() -> None:
    out = run_program(
        STUCK
        + """
health.add("it", stuck_loop, timeout=0.05)
print(health.run_sync().results["it"].reason)
"""
    )
    assert out == "timeout\n"


@pytest.mark.parametrize("run", ["asyncio.run", "uvloop.run"])
def test_a_server_with_stuck_probes_exits_at_once(run: str) -> None:
    out = run_program(
        STUCK
        + f"""
import uvloop
for probe in (stuck_sync, stuck_async):
    health.add(probe.__name__, probe, timeout=0.05)
health.add("background", stuck_async, interval=0.01, timeout=0.05)
# This one has not even timed out when the loop ends.
health.add("fresh", stuck_async, interval=0.01, timeout=60)

async def main():
    health.start()
    await until(lambda: health.run_sync("stuck_async").status is Status.FAILED)
    await until(lambda: health.checks["background"].latest.reason is Reason.STUCK)

{run}(main())
print("ended")
"""
    )
    assert out == "ended\n"


def test_a_trio_program_with_a_stuck_thread_exits_at_once() -> None:
    out = run_program(
        STUCK
        + """
health.add("it", stuck_sync, timeout=0.05)
print(anyio.run(health.run, backend="trio").results["it"].reason)
"""
    )
    assert out == "timeout\n"


# In process: loops come to an end


class Defiant:
    """A probe that ignores its cancellation as long as there is a loop."""

    def __init__(self) -> None:
        self.running = 0

    async def __call__(self) -> None:
        self.running += 1
        await defy_cancellation(anyio.Event())


@pytest.mark.parametrize("timeout", [0.02, PATIENCE], ids=["after its timeout", "before it"])
@pytest.mark.parametrize("closing", [True, False], ids=["closing", "not closing"])
def test_asyncio_run_ends_although_a_probe_ignores_cancellation(
    timeout: float, closing: bool
) -> None:
    probe = Defiant()
    health = Health(deadline=0.1, max_age=0)
    health.add("it", probe, timeout=timeout)

    async def app() -> Report:
        report = await health.run()
        if closing:
            await health.aclose()
        return report

    report = InThread(lambda: asyncio.run(app())).result()
    assert report.results["it"].reason is Reason.TIMEOUT
    assert probe.running == 1
    # The loop that it was stuck in is gone, so nothing keeps the check from running on another.
    again = InThread(lambda: asyncio.run(app())).result()
    assert again.results["it"].reason is Reason.TIMEOUT
    assert probe.running == 2


class Honest:
    """A probe that cleans up when it is cancelled, which takes a moment."""

    def __init__(self) -> None:
        self.began = 0
        self.cleaned = 0

    async def __call__(self) -> None:
        self.began += 1
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.02)
            self.cleaned += 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_honest_probe_may_clean_up_when_its_loop_ends(backend: str) -> None:
    probe = Honest()
    health = Health()
    health.add("quick", ScriptedProbe())
    check = health.add("it", probe, timeout=PATIENCE, interval=3600)

    async def app() -> None:
        assert (await health.run("quick")).ok  # others have come and gone before
        await anyio.sleep(0.01)
        health.start()
        await until(lambda: probe.began)

    anyio.run(app, backend=backend)
    assert probe.cleaned == 1
    assert check.latest.reason is Reason.NEVER_RUN  # which is no failure of the check's


def test_so_it_may_where_all_tasks_were_cancelled_and_the_loop_went_on() -> None:
    probe = Honest()
    health = Health(max_age=0)
    health.add("it", probe, timeout=PATIENCE)

    async def app() -> None:
        for runs in (1, 2):
            asking = asyncio.create_task(health.run())
            await until(lambda: probe.began == runs)  # noqa: B023 - it is over before the next
            if runs == 1:
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
                await until(lambda: probe.cleaned)
                assert asking.cancelled()

    asyncio.run(app())
    assert (probe.began, probe.cleaned) == (2, 2)


@pytest.mark.parametrize("pending", ["coroutine", "future"])
def test_a_run_dropped_with_its_loop_is_no_failure(pending: str) -> None:
    dropped = []

    class Watched:
        def __del__(self) -> None:
            dropped.append(1)

    began = []

    async def probe() -> None:
        watched = Watched()  # noqa: F841 - it lives as long as this frame
        began.append(1)
        await asyncio.get_running_loop().create_future()

    def future() -> asyncio.Future[None]:
        began.append(1)
        waiting = asyncio.get_running_loop().create_future()
        waiting.watched = Watched()  # type: ignore[attr-defined]
        return waiting

    future.is_async = True  # type: ignore[attr-defined]
    health = Health(max_age=0, deadline=0.05)
    check = health.add("it", {"coroutine": probe, "future": future}[pending], timeout=PATIENCE)
    loop = asyncio.new_event_loop()
    reader = loop.create_task(health.run())
    loop.run_until_complete(until(lambda: began))
    reader.cancel()
    loop.run_until_complete(asyncio.wait([reader]))
    loop.close()
    del loop, reader
    health.run_sync()  # on another loop, which is what lets go of the old one
    gc.collect()
    assert dropped
    assert check.latest.reason is Reason.NEVER_RUN
