"""What a check remembers of its past."""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from healthmw import CircuitBreaker, Degraded, Health, Reason, Status
from healthmw._breaker_state import BreakerState

if TYPE_CHECKING:
    from healthmw._history import History


class Scripted:
    """A probe that does what it is told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fails = False
        self.health = Health(max_age=0, clock=lambda: self.now)
        self.health.add("it", self.probe)

    def probe(self) -> None:
        if self.fails:
            raise OSError("down")

    def run(self, *outcomes: bool, every: float = 1.0) -> History:
        for well in outcomes:
            self.fails = not well
            self.now += every
            self.health.run_sync()
        return self.health.history("it")


def test_what_never_ran_has_no_past() -> None:
    history = Scripted().health.history("it")

    assert (history.runs, history.changed, history.flaps, history.age) == (0, 0, 0, None)
    assert (history.recent, history.changes) == ((), ())
    assert (dict(history.failures), dict(history.circuit)) == ({}, {})


def test_runs_failures_and_changes_are_counted() -> None:
    history = Scripted().run(True, True, False, False, True)

    assert history.runs == 5
    assert history.failures == {Reason.FAILED: 2}
    assert [run.raw for run in history.recent] == [
        Status.OKAY, Status.OKAY, Status.FAILED, Status.FAILED, Status.OKAY,
    ]  # fmt: skip
    assert all(run.duration > 0 for run in history.recent)
    assert history.changed == 2
    assert [(change.old, change.new) for change in history.changes] == [
        (Status.OKAY, Status.FAILED),
        (Status.FAILED, Status.OKAY),
    ]
    assert history.changes[0].reason is Reason.FAILED
    assert history.changes[0].when <= history.changes[1].when


def test_age_is_by_the_healths_own_clock() -> None:
    script = Scripted()
    script.run(True)
    script.now += 7.5

    assert script.health.history("it").age == 7.5


def test_how_long_the_verdict_has_stood_is_known() -> None:
    script = Scripted()
    assert script.health.history("it").unchanged is None
    script.run(False, False, every=2)
    script.now += 0.5
    history = script.health.history("it")
    assert (history.status, history.unchanged) == (Status.FAILED, 2.5)
    history = script.run(True, True, every=10)
    assert (history.status, history.unchanged) == (Status.OKAY, 10)


def test_memory_is_bounded() -> None:
    history = Scripted().run(*[True, False] * 100)

    assert (history.runs, history.changed) == (200, 199)
    assert (len(history.recent), len(history.changes)) == (60, 20)
    assert history.recent[-1].raw is Status.FAILED


def test_flaps_are_of_the_last_hour_and_up_or_down() -> None:
    script = Scripted()
    assert script.run(True, False, True, every=1).flaps == 2
    script.now += 3500
    assert script.run(False, every=1).flaps == 3
    script.now += 3500
    assert script.health.history("it").flaps == 1

    worse = [False]
    health = Health(max_age=0)
    health.add("it", lambda: Degraded("slow") if worse[0] else None)
    for value in (False, True, False):
        worse[0] = value
        health.run_sync()
    assert (health.history("it").changed, health.history("it").flaps) == (2, 0)


def test_the_circuits_states_are_counted() -> None:
    health = Health(max_age=0)

    def broken() -> None:
        raise OSError("down")

    breaker = CircuitBreaker(consecutive_failures=1)
    health.add("it", broken, breaker=breaker)
    health.run_sync()
    assert breaker.try_acquire() is None  # a call that is refused is no change
    breaker.reset()
    health.run_sync()

    assert health.history("it").circuit == {BreakerState.OPEN: 2, BreakerState.CLOSED: 1}


def test_what_the_apps_own_calls_show_is_no_run() -> None:
    ran = []
    health = Health(max_age=0)
    check = health.add("it", lambda: ran.append(1), breaker=CircuitBreaker(), passive=True)
    with check.guard():
        pass
    health.run_sync()

    assert not ran
    assert health.history("it").runs == 0
    assert health.history("it").age is not None


def test_a_name_that_is_none_is_an_error() -> None:
    health = Scripted().health

    for look in (health.history, health.check):
        with pytest.raises(ValueError, match="there is no check 'nothing', only it"):
            look("nothing")
    with pytest.raises(ValueError, match="no group or check 'nothing'"):
        health.members("nothing")
    with pytest.raises(ValueError, match="no group or check 'nothing'"):
        health.last("nothing")


def test_members_and_groups_are_told() -> None:
    health = Scripted().health
    health.add("schema", lambda: None, groups=["release"])
    health.group("mine", checks=["it"])

    assert health.groups == ("ready", "live", "startup", "release", "mine")
    assert health.members("ready") == health.members("mine") == health.members("it") == ("it",)
    assert health.members("release") == ("it", "schema")
    assert health.members("live") == ()
    assert health.check("it").name == "it"


@pytest.mark.anyio
async def test_only_what_is_named_is_run() -> None:
    ran: list[str] = []
    health = Health(max_age=3600)
    for name in ("a", "b"):
        health.add(name, functools.partial(ran.append, name))

    report = await health.run(only=["b"])
    assert (list(report.results), ran) == (["b"], ["b"])
    assert report.ok
    assert health.peek("ready") is None
    assert list((await health.run()).results) == ["a", "b"]
    assert list((await health.run(only={"a"})).results) == ["a"]
    assert ran == ["b", "a"]
    for only in ([], ["c"], ["a", "c"], ["ready"]):
        with pytest.raises(ValueError, match=r"only=.* must name checks of 'ready': a, b"):
            await health.run(only=only)


@pytest.mark.anyio
@pytest.mark.parametrize("only", ["ab", "a", "", b"ab", 3, ["a", 3]])
async def test_only_is_a_collection_of_names_and_nothing_else(only: Any) -> None:
    health = Health()
    for name in ("a", "b", "ab"):
        health.add(name, lambda: pytest.fail("run, and nobody has named it"))

    for error in (ValueError, TypeError):
        with pytest.raises(error, match=r"^only must be a collection of names"):
            await health.run(only=only)
        with pytest.raises(error, match=r"^only must be a collection of names"):
            health.run_sync(only=only)


def test_many_threads_lose_no_count() -> None:
    health = Health(max_age=0)
    health.add("it", lambda: None)
    start = threading.Barrier(4)

    def ask() -> None:
        start.wait(10)
        for _ in range(50):
            health.run_sync()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    history = health.history("it")
    assert 50 <= history.runs <= 200  # those who come together share one
    assert len(history.recent) == min(history.runs, 60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_begins_anew() -> None:
    script = Scripted()
    script.run(True, False)

    child = os.fork()
    if not child:
        os._exit(script.health.history("it").runs)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert script.health.history("it").runs == 2
