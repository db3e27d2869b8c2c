from __future__ import annotations

import asyncio
import math
import threading
import traceback
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from healthmw import Degraded, Health, Reason, Status
from healthmw.testing import ManualClock, ScriptedProbe
from tests.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable

both_kinds = pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])


def call(probe: ScriptedProbe) -> Any:
    return asyncio.run(probe()) if probe.is_async else probe()


def test_the_clock_stands_still_until_told_to_go_on() -> None:
    clock = ManualClock()
    assert clock() == clock.now == 0.0
    clock.advance(1.5)
    clock.advance(0)
    assert clock() == clock.now == 1.5
    assert ManualClock(100.0)() == 100.0


@pytest.mark.parametrize("seconds", [-0.1, -math.inf, math.inf, math.nan])
def test_time_never_goes_back(seconds: float) -> None:
    clock = ManualClock(5.0)
    with pytest.raises(ValueError, match=r"seconds=.* must be a finite number, 0 or more"):
        clock.advance(seconds)
    assert clock.now == 5.0


@both_kinds
def test_a_probe_without_a_script_is_always_well(is_async: bool) -> None:
    probe = ScriptedProbe(is_async=is_async)
    assert [call(probe) for _ in range(3)] == [None, None, None]
    assert probe.calls == 3
    assert probe.running == 0


@both_kinds
def test_calls_end_as_the_script_says_and_the_last_outcome_is_repeated(is_async: bool) -> None:
    slow = Degraded("slow")
    lag = {"lag_seconds": 3}
    refused = ConnectionError("refused")
    probe = ScriptedProbe(slow, lag, refused, ValueError, None, is_async=is_async)
    assert call(probe) is slow
    assert call(probe) is lag
    with pytest.raises(ConnectionError) as raised:
        call(probe)
    assert raised.value is refused
    with pytest.raises(ValueError, match=r"^$"):
        call(probe)
    assert [call(probe) for _ in range(3)] == [None, None, None]
    assert probe.calls == 7


def test_a_script_that_is_a_list_is_refused() -> None:
    wrong: Any = [None, ConnectionError()]
    for tell in (ScriptedProbe, ScriptedProbe().play):
        with pytest.raises(ValueError, match=r"one after the other, as in ScriptedProbe\(None, "):
            tell(wrong)


@both_kinds
def test_another_script_takes_the_place_of_the_rest_of_the_old_one(is_async: bool) -> None:
    probe = ScriptedProbe(ValueError("never seen"), is_async=is_async)
    probe.play(None, OSError("gone"))
    assert call(probe) is None
    with pytest.raises(OSError, match="gone"):
        call(probe)
    probe.play()
    assert call(probe) is None


@both_kinds
def test_an_exception_raised_again_and_again_does_not_grow(is_async: bool) -> None:
    refused = ConnectionError("refused")
    probe = ScriptedProbe(refused, is_async=is_async)
    lengths = set()
    for _ in range(3):
        with pytest.raises(ConnectionError):
            call(probe)
        lengths.add(len(traceback.extract_tb(refused.__traceback__)))
    assert len(lengths) == 1


@pytest.mark.anyio
async def test_an_async_probe_hangs_until_released() -> None:
    probe = ScriptedProbe(ValueError("not this one"))
    probe.hang()
    outcomes: list[object] = []

    async def keep() -> None:
        outcomes.append(await probe())

    async with anyio.create_task_group() as group:
        group.start_soon(keep)
        group.start_soon(keep)
        await until(lambda: probe.running == 2)
        assert outcomes == []
        probe.play({"first": 1}, {"second": 2})
        probe.release()
    assert outcomes == [{"first": 1}, {"second": 2}]
    assert probe.running == 0
    assert await probe() == {"second": 2}


@pytest.mark.anyio
async def test_an_async_probe_is_released_from_another_thread() -> None:
    probe = ScriptedProbe()
    probe.hang()
    async with anyio.create_task_group() as group:
        group.start_soon(probe)
        await until(lambda: probe.running)
        await anyio.to_thread.run_sync(probe.release)
    assert probe.running == 0


@pytest.mark.anyio
async def test_a_call_that_hangs_can_be_cancelled() -> None:
    probe = ScriptedProbe()
    probe.hang()
    with anyio.move_on_after(0.01) as scope:
        await probe()
    assert scope.cancelled_caught
    assert (probe.calls, probe.running) == (1, 0)
    probe.release()


def test_a_sync_probe_hangs_until_released() -> None:
    probe = ScriptedProbe(is_async=False)
    probe.hang()
    thread = threading.Thread(target=probe)
    thread.start()
    until_sync(lambda: probe.running)
    probe.release()
    thread.join()
    assert (probe.calls, probe.running) == (1, 0)


def test_a_call_whose_loop_has_ended_needs_no_release() -> None:
    probe = ScriptedProbe()
    probe.hang()
    loop = asyncio.new_event_loop()
    forgotten = loop.create_task(probe())
    loop.run_until_complete(until(lambda: probe.running))
    loop.close()
    probe.release()
    assert call(probe) is None
    # As asyncio would complain of it when it is collected.
    forgotten._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.anyio
@both_kinds
@pytest.mark.parametrize(
    "change",
    [lambda probe: probe.play(ConnectionError("refused")), lambda probe: probe.hang()],
    ids=["play", "hang"],
)
async def test_they_serve_a_health(is_async: bool, change: Callable[[ScriptedProbe], None]) -> None:
    clock, probe = ManualClock(), ScriptedProbe(is_async=is_async)
    health = Health(clock=clock)
    health.add("database", probe, timeout=0.05)
    assert (await health.run()).ok
    change(probe)
    assert (await health.run()).ok
    clock.advance(1.0)
    result = (await health.run()).results["database"]
    assert result.status is Status.FAILED
    assert result.reason in {Reason.FAILED, Reason.TIMEOUT}
    assert probe.calls == 2
    probe.release()
