"""`passive=True`: the app's own calls that go well are evidence, and spare the probe's."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from healthmw import CircuitBreaker, Health, Reason, Status
from healthmw.testing import ManualClock, ScriptedProbe
from tests.waiting import PATIENCE, InThread, until

pytestmark = pytest.mark.anyio


class Fixture:
    def __init__(self, *, passive: bool = True, **rules: Any) -> None:
        self.clock = ManualClock()
        self.probe = ScriptedProbe()
        self.breaker = CircuitBreaker(consecutive_failures=3, **rules)
        self.health = Health(clock=self.clock)
        self.check = self.health.add(
            "payments", self.probe, breaker=self.breaker, passive=passive, timeout=PATIENCE
        )

    def call(self, *, well: bool = True) -> None:
        with self.check.guard():
            if not well:
                raise OSError("refused")

    async def detail(self, *, fresh: bool = False) -> str:
        self.clock.advance(1)
        result = (await self.health.run(fresh=fresh)).results["payments"]
        assert (result.status, result.reason) == (Status.OKAY, Reason.OKAY)
        return result.detail


SEEN = "seen in the app's own calls"


@pytest.mark.parametrize("rules", [{}, {"window_calls": 10}], ids=["in a row", "window"])
async def test_calls_that_go_well_spare_the_probe(rules: dict[str, Any]) -> None:
    it = Fixture(**rules)
    for _ in range(3):
        it.call()
        assert await it.detail() == SEEN
    assert it.probe.calls == 0


async def test_without_calls_the_probe_has_to_look() -> None:
    it = Fixture()
    for calls in (1, 2):  # its own success is no evidence for the next time
        assert await it.detail() == ""
        assert it.probe.calls == calls
    it.call()
    assert await it.detail() == SEEN
    assert await it.detail() == ""
    assert it.probe.calls == 3


async def test_a_single_call_that_fails_has_the_probe_look() -> None:
    it = Fixture()
    it.call()
    with pytest.raises(OSError, match="refused"):
        it.call(well=False)
    it.call()
    assert await it.detail() == ""
    assert it.probe.calls == 1
    it.call()
    assert await it.detail() == SEEN


async def test_who_asks_afresh_is_answered_by_the_probe() -> None:
    it = Fixture()
    it.call()
    assert await it.detail(fresh=True) == ""
    assert it.probe.calls == 1


async def test_only_a_passive_check_listens() -> None:
    it = Fixture(passive=False)
    it.call()
    assert await it.detail() == ""
    assert it.probe.calls == 1


async def test_calls_are_no_evidence_against_an_open_breaker() -> None:
    it = Fixture()
    it.call()
    it.breaker.force_open()
    assert not (await it.health.run()).ok
    it.breaker.reset()
    assert await it.detail() == ""


async def test_a_run_under_way_is_waited_for() -> None:
    it = Fixture()
    it.probe.hang()
    first = InThread(lambda: it.health.run_sync(fresh=True))
    await until(lambda: it.probe.running)
    it.call()
    second = InThread(it.health.run_sync)
    it.probe.play({"n": 1})
    it.probe.release()
    await until(lambda: first.done and second.done)
    assert first.result().results["payments"].measurements == {"n": 1}
    assert second.result().results["payments"].measurements == {"n": 1}
    assert it.probe.calls == 1


async def test_calls_of_long_ago_are_no_evidence() -> None:
    it = Fixture()
    it.call()
    it.clock.advance(9)  # and one second more
    assert await it.detail() == SEEN
    it.call()
    it.clock.advance(9.5)
    assert await it.detail() == ""
    assert it.probe.calls == 1
    it.call()
    assert await it.detail() == SEEN


async def test_what_was_heard_before_a_fork_is_no_evidence_after_it() -> None:
    it = Fixture()
    it.call()
    it.health._after_fork()  # what a fork calls in the child
    assert await it.detail() == ""
    it.call()
    assert await it.detail() == SEEN
    assert it.probe.calls == 1


def test_a_clock_of_the_event_loop_has_nothing_to_say_before_there_is_one() -> None:
    probe = ScriptedProbe()
    health = Health(clock=anyio.current_time, max_age=0)
    check = health.add("it", probe, breaker=CircuitBreaker(), passive=True)

    async def main() -> list[str]:
        details = []
        for _ in range(2):
            with check.guard():
                pass
            details.append((await health.run("it")).results["it"].detail)
        return details

    assert anyio.run(main) == ["", SEEN]
    assert probe.calls == 1


async def test_in_the_background_calls_are_evidence_for_as_long_as_a_result() -> None:
    clock, probe = ManualClock(), ScriptedProbe()
    health = Health(clock=clock, max_age=0)
    check = health.add(
        "it", probe, breaker=CircuitBreaker(), passive=True, interval=0.01, stale_after=60
    )
    async with health:
        await until(lambda: probe.calls)
        for advanced, seen in ((50, SEEN), (70, "")):
            clock.advance(advanced)
            calls = probe.calls
            with check.guard():
                pass
            await until(lambda seen=seen: check.latest.detail == seen)  # type: ignore[misc]  # seen is a str
            assert seen or probe.calls > calls


async def test_another_check_s_probe_is_no_call_of_the_app_s() -> None:
    clock, breaker = ManualClock(), CircuitBreaker()
    health = Health(clock=clock)
    probe = ScriptedProbe(ConnectionError("gone"))
    health.add("other", ScriptedProbe(), breaker=breaker)
    health.add("it", probe, breaker=breaker, passive=True)
    for _ in range(2):
        assert (await health.run("other")).ok
        assert not (await health.run("it")).ok
        clock.advance(2)
    assert probe.calls == 2


async def test_a_guarded_call_of_the_probe_is_no_call_of_the_app_s() -> None:
    clock = ManualClock()
    health = Health(clock=clock)
    service = ScriptedProbe(None, ConnectionError("gone"), is_async=False)

    def probe() -> None:
        check.guard()(service)()

    check = health.add("it", probe, breaker=CircuitBreaker(), passive=True)
    assert (await health.run()).ok
    clock.advance(2)
    assert not (await health.run()).ok
    assert service.calls == 2
