"""What a check costs: how often its probe runs at most, and how long a failure is remembered."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import pytest
from trio.testing import MockClock

from healthmw import CircuitBreaker, Degraded, Health, Reason, Status
from healthmw.testing import ManualClock, ScriptedProbe
from tests.programs import run_program
from tests.waiting import PATIENCE, soon, until

if TYPE_CHECKING:
    from healthmw import Result

anyio_too = pytest.mark.anyio
both_kinds = pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])

virtual_time = pytest.mark.parametrize(
    "anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})]
)

GONE = ConnectionError("gone")


async def one(health: Health, *, fresh: bool = False) -> Result:
    return (await soon(health.run("it", fresh=fresh))).results["it"]


# Ages


@anyio_too
@both_kinds
@pytest.mark.parametrize(("well", "failure"), [(10.0, 1.0), (1.0, 10.0), (1.0, 0.0)])
async def test_a_failure_has_an_age_of_its_own(well: float, failure: float, is_async: bool) -> None:
    clock, probe = ManualClock(), ScriptedProbe(GONE, None, is_async=is_async)
    health = Health(clock=clock)
    health.add("it", probe, max_age=well, failure_max_age=failure)
    assert not (await one(health)).ok
    if failure:
        clock.advance(failure - 0.01)
        assert not (await one(health)).ok
        assert probe.calls == 1
        clock.advance(0.02)
    assert (await one(health)).ok
    assert probe.calls == 2
    clock.advance(well - 0.01)
    await one(health)
    assert probe.calls == 2
    clock.advance(0.02)
    await one(health)
    assert probe.calls == 3


@anyio_too
async def test_what_is_degraded_is_as_old_as_a_pass_may_be() -> None:
    clock, probe = ManualClock(), ScriptedProbe(Degraded("slow"))
    health = Health(clock=clock)
    health.add("it", probe, max_age=10, failure_max_age=1)
    await one(health)
    clock.advance(9)
    await one(health)
    assert probe.calls == 1


@anyio_too
async def test_without_one_it_is_as_old_as_a_pass_may_be() -> None:
    clock, probe = ManualClock(), ScriptedProbe(GONE)
    health = Health(clock=clock, max_age=5)
    assert health.add("it", probe).failure_max_age is None
    await one(health)
    clock.advance(4.9)
    await one(health)
    assert probe.calls == 1


@anyio_too
async def test_a_failure_that_the_thresholds_hide_counts_as_one_and_so_does_a_recovery() -> None:
    clock = ManualClock()
    probe = ScriptedProbe(None, GONE, GONE, None, None, None)
    health = Health(clock=clock, max_age=100)
    health.add("it", probe, failure_max_age=1, failure_threshold=2, success_threshold=2)
    seen = []
    await one(health)
    clock.advance(100)
    for _ in range(4):
        result = await one(health)
        seen.append((result.status, result.raw))
        clock.advance(1)
    assert seen == [
        (Status.OKAY, Status.FAILED),
        (Status.FAILED, Status.FAILED),
        (Status.FAILED, Status.OKAY),
        (Status.OKAY, Status.OKAY),
    ]
    await one(health)
    assert probe.calls == 5


# Rates


@anyio_too
@both_kinds
@pytest.mark.parametrize("outcome", [None, GONE], ids=["well", "failed"])
async def test_so_many_runs_an_hour_whatever_asks(
    outcome: Exception | None, is_async: bool
) -> None:
    clock, probe = ManualClock(), ScriptedProbe(outcome, is_async=is_async)
    health = Health(clock=clock, max_age=1)
    health.add("it", probe, per_hour=4)
    first = await one(health)
    for _ in range(899):
        clock.advance(1)
        assert await one(health) is first
        assert await one(health, fresh=True) is first
        assert health.run_sync("it", fresh=True).results["it"] is first
    assert probe.calls == 1
    assert first.ok is (outcome is None)
    assert health.history("it").age == 899
    clock.advance(1)
    assert await one(health) is not first
    assert probe.calls == 2


@anyio_too
async def test_a_result_may_be_older_than_the_rate_asks_for() -> None:
    clock, probe = ManualClock(), ScriptedProbe()
    health = Health(clock=clock)
    health.add("it", probe, per_hour=60, max_age=100)
    await one(health)
    clock.advance(99)
    await one(health)
    assert probe.calls == 1
    await one(health, fresh=True)
    assert probe.calls == 2
    clock.advance(59)
    await one(health, fresh=True)
    assert probe.calls == 2


@anyio_too
async def test_the_hour_counts_from_the_beginning_of_a_run_and_readers_wait_for_its_end() -> None:
    clock, probe = ManualClock(), ScriptedProbe({"run": 1}, {"run": 2})
    health = Health(clock=clock)
    health.add("it", probe, per_hour=1, timeout=PATIENCE)
    found = []

    async def ask() -> None:
        found.append(dict((await one(health)).measurements))

    for _ in range(2):
        probe.hang()
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await until(lambda: probe.running)
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            clock.advance(1800)
            probe.release()
        clock.advance(1800)
    assert found == [{"run": 1}] * 2 + [{"run": 2}] * 2


@anyio_too
async def test_a_run_that_is_stuck_is_told_of_all_the_same() -> None:
    probe = ScriptedProbe(is_async=False)
    probe.hang()
    health = Health(max_age=0)
    health.add("it", probe, per_hour=1, timeout=0.02)
    assert (await one(health)).reason is Reason.TIMEOUT
    await until(lambda: health.run_sync("it").results["it"].reason is Reason.STUCK)
    probe.release()
    await until(lambda: not probe.running)


@anyio_too
@virtual_time
async def test_a_background_check_is_not_stale_where_the_rate_has_it_wait() -> None:
    times: list[float] = []
    enough = anyio.Event()

    async def probe() -> None:
        times.append(anyio.current_time())
        if len(times) == 4:
            enough.set()

    health = Health(clock=anyio.current_time, random=lambda: 0.0)  # each pause a tenth too short
    health.add("it", probe, per_hour=4, interval=900)
    await health.run()
    async with health:
        while not enough.is_set():
            await anyio.sleep(10)
            assert (await health.run(fresh=True)).ok
            assert (await health.run()).ok
    # Each run comes when it is due, whether the interval or who asks for a fresh one begins it.
    assert [after - before for before, after in pairwise(times)] == pytest.approx([900] * 3)


@anyio_too
@virtual_time
async def test_the_trials_of_a_breaker_keep_to_the_rate() -> None:
    times: list[float] = []

    async def probe() -> None:
        times.append(anyio.current_time())
        if len(times) < 4:
            raise GONE

    health = Health(clock=anyio.current_time, random=lambda: 0.0)
    breaker = CircuitBreaker(consecutive_failures=1)
    check = health.add("it", probe, per_hour=12, breaker=breaker)
    async with health:
        await health.run()
        while not check.available:
            result = (await health.run(fresh=True)).results["it"]
            if result.reason is Reason.CIRCUIT_OPEN:  # else this was the trial
                wait = times[-1] + 300 - anyio.current_time()
                assert result.retry_after == pytest.approx(wait)
            await anyio.sleep(10)
    assert [after - before for before, after in pairwise(times)] == pytest.approx([300] * 3)


def test_a_child_of_a_fork_has_a_budget_of_its_own() -> None:
    probe = ScriptedProbe()
    health = Health()
    health.add("it", probe, per_hour=1)
    assert health.run_sync().ok
    health._after_fork()  # what a fork calls in the child
    assert health.run_sync().ok
    assert probe.calls == 2


def test_a_run_that_could_not_begin_is_none_of_so_many_an_hour() -> None:
    run_program("""
    def no_more(self):
        raise RuntimeError("can't start new thread")

    probe = ScriptedProbe(is_async=False)
    health = Health()
    health.add("it", probe, per_hour=4, max_age=0)
    start, threading.Thread.start = threading.Thread.start, no_more
    assert health.run_sync().results["it"].reason is Reason.FAILED
    threading.Thread.start = start
    assert health.run_sync().ok
    assert probe.calls == 1
    """)
