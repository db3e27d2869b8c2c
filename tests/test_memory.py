"""What is remembered of results: thresholds, ages, breakers; and what the log hears of changes."""

from __future__ import annotations

import functools
import itertools
import logging
from typing import Any

import pytest

from healthmw import CircuitBreaker, Degraded, Health, Reason, Status
from healthmw.testing import ManualClock, ScriptedProbe
from tests.waiting import until

pytestmark = pytest.mark.anyio

OKAY, DEGRADED, UNKNOWN, FAILED = Status.OKAY, Status.DEGRADED, Status.UNKNOWN, Status.FAILED
GONE = ConnectionError("gone")


# Thresholds: the verdict turns late, the raw outcome is there at once


async def test_it_takes_failures_in_a_row_to_fail() -> None:
    script = [None, GONE, GONE, None, GONE, GONE, GONE, GONE, None]
    health = Health(max_age=0)
    health.add("it", ScriptedProbe(*script), failure_threshold=3)
    seen = []
    for _ in script:
        result = (await health.run()).results["it"]
        seen.append((result.status, result.raw, result.reason))
    okay, failed = (OKAY, OKAY, Reason.OKAY), (FAILED, FAILED, Reason.FAILED)
    damped = (OKAY, FAILED, Reason.FAILED)
    assert seen == [okay, damped, damped, okay, damped, damped, failed, failed, okay]


async def test_it_takes_successes_in_a_row_to_be_well_again() -> None:
    script = [GONE, None, GONE, None, Degraded("warming up"), None, None, GONE]
    health = Health(max_age=0)
    health.add("it", ScriptedProbe(*script), success_threshold=3)
    seen = []
    for _ in script:
        report = await health.run()
        result = report.results["it"]
        assert report.status is result.status
        seen.append((result.status, result.raw, result.reason))
    failed = (FAILED, FAILED, Reason.FAILED)
    recovering = (FAILED, OKAY, Reason.RECOVERING)
    assert seen == [
        failed,
        recovering,
        failed,
        recovering,
        (FAILED, DEGRADED, Reason.RECOVERING),
        (OKAY, OKAY, Reason.OKAY),
        (OKAY, OKAY, Reason.OKAY),
        failed,
    ]


async def test_thresholds_count_both_ways_at_once() -> None:
    script = [None, GONE, GONE, None, GONE, None, None, GONE, GONE]
    health = Health(max_age=0)
    health.add("it", ScriptedProbe(*script), failure_threshold=2, success_threshold=2)
    statuses = [(await health.run()).status for _ in script]
    assert statuses == [OKAY, OKAY, FAILED, FAILED, FAILED, FAILED, OKAY, OKAY, FAILED]


@pytest.mark.parametrize(
    ("outcome", "verdict"), [(None, OKAY), (Degraded(), DEGRADED), (GONE, FAILED)]
)
async def test_the_first_outcome_counts_whatever_the_thresholds(
    outcome: Any, verdict: Status
) -> None:
    health = Health(max_age=0)
    probe = ScriptedProbe(outcome)
    health.add("it", probe, failure_threshold=5, success_threshold=5)
    assert (await health.run()).status is verdict


async def test_from_well_to_degraded_and_back_it_needs_no_threshold() -> None:
    script = [None, Degraded(), None, Degraded(), GONE, Degraded()]
    health = Health(max_age=0)
    health.add("it", ScriptedProbe(*script), failure_threshold=2, success_threshold=2)
    statuses = [(await health.run()).status for _ in script]
    assert statuses == [OKAY, DEGRADED, OKAY, DEGRADED, DEGRADED, DEGRADED]


# Ages, by a clock that is set by hand


@pytest.mark.parametrize("outcome", [None, GONE], ids=["good", "bad"])
async def test_a_result_is_served_from_memory_while_it_is_young(outcome: Any) -> None:
    clock = ManualClock(1000.0)
    probe = ScriptedProbe(outcome)
    health = Health(max_age=2.0, clock=clock)
    health.add("it", probe)
    first = await health.run()
    clock.advance(1.999)
    assert await health.run() is first  # the very same report
    assert health.run_sync() is first
    assert (await health.run("it")).results["it"] is first.results["it"]
    assert probe.calls == 1
    clock.advance(0.001)
    second = await health.run()
    assert probe.calls == 2
    assert second.results["it"] is not first.results["it"]


@pytest.mark.parametrize("order", [*itertools.permutations(["paid", "plain", "none"])], ids=str)
async def test_each_check_has_an_age_of_its_own(order: tuple[str, ...]) -> None:
    clock = ManualClock()
    health = Health(max_age=1, clock=clock)
    paid, plain, none = ScriptedProbe(), ScriptedProbe(), ScriptedProbe()
    policies = {
        "paid": functools.partial(health.add, "paid", paid, max_age=900),
        "plain": functools.partial(health.add, "plain", plain),
        "none": functools.partial(health.add, "none", none, max_age=0),
    }
    for name in order:
        policies[name]()
    for expected in ((1, 1, 1), (1, 1, 2)):
        await health.run()
        assert (paid.calls, plain.calls, none.calls) == expected
    clock.advance(899.9)
    await health.run()
    assert (paid.calls, plain.calls, none.calls) == (1, 2, 3)
    clock.advance(0.1)
    await health.run("paid")
    assert paid.calls == 2


async def test_groups_share_the_results_of_their_checks() -> None:
    probe = ScriptedProbe(None, GONE)
    health = Health(clock=ManualClock())
    health.add("it", probe, groups=["live"])
    for group in ("ready", "live", "startup", "release", "it"):
        assert (await health.run(group)).ok
    assert probe.calls == 1


async def test_what_is_asked_afresh_is_not_served_from_memory() -> None:
    probe = ScriptedProbe(None, GONE)
    health = Health(clock=ManualClock())
    health.add("it", probe)
    assert (await health.run()).ok
    assert not (await health.run(fresh=True)).ok
    assert not (await health.run()).ok  # and it stands
    assert health.run_sync(fresh=True).results["it"].status is FAILED
    assert probe.calls == 3


async def test_a_new_result_is_seen_by_every_group() -> None:
    probe = ScriptedProbe(None, GONE)
    health = Health(clock=ManualClock())
    health.add("it", probe, groups=["live"])
    assert (await health.run("live")).ok
    assert (await health.run("ready")).ok
    assert not (await health.run("it", fresh=True)).ok
    assert not (await health.run("live")).ok
    assert not (await health.run("ready")).ok
    assert probe.calls == 2


async def test_peek_asks_nobody() -> None:
    clock = ManualClock()
    probe = ScriptedProbe()
    health = Health(clock=clock)
    health.add("it", probe)
    assert health.peek("ready") is None
    report = await health.run()
    assert health.peek("ready") is report
    assert health.peek("it") is None
    assert health.peek("nothing") is None
    clock.advance(1)
    assert health.peek("ready") is None
    assert probe.calls == 1


async def test_the_last_report_asks_nobody() -> None:
    clock = ManualClock()
    probe = ScriptedProbe()
    health = Health(clock=clock)
    health.add("it", probe)
    assert health.last().results["it"].reason is Reason.NEVER_RUN
    report = await health.run()
    assert health.last() is report
    clock.advance(3600)
    assert health.last().results["it"] is report.results["it"]
    assert health.last("it").status is OKAY
    assert probe.calls == 1


async def test_a_background_result_that_grows_old_is_unknown() -> None:
    clock = ManualClock()
    probe = ScriptedProbe(Degraded("slow", {"lag_seconds": 3}))
    health = Health(clock=clock)
    check = health.add("it", probe, interval=3600, timeout=5, stale_after=4000)
    assert (await health.run()).results["it"].reason is Reason.NEVER_RUN
    async with health:
        await until(lambda: check.status is DEGRADED)
        assert (await health.run()).status is DEGRADED
        clock.advance(3999.9)
        assert (await health.run()).results["it"].reason is Reason.DEGRADED
        clock.advance(0.1)
        report = await health.run()
        result = report.results["it"]
        assert (report.status, report.code) == (UNKNOWN, 503)
        assert (result.status, result.reason) == (UNKNOWN, Reason.STALE)
        assert (result.raw, result.detail) == (DEGRADED, "slow")  # what was seen last is still told
        assert (await health.run("it", fresh=False)).status is UNKNOWN
    assert probe.calls == 1


async def test_what_runs_in_the_background_is_only_read_by_readers() -> None:
    probe = ScriptedProbe()
    health = Health(max_age=0)
    health.add("it", probe, interval=3600)
    for _ in range(3):
        report = await health.run()
        assert (report.status, report.code) == (UNKNOWN, 503)
        assert report.results["it"].reason is Reason.NEVER_RUN
    assert probe.calls == 0
    assert (await health.run(fresh=True)).ok  # unless it is asked to run
    assert probe.calls == 1
    assert (await health.run()).ok


# Breakers, as verdicts see them


async def test_an_open_breaker_answers_in_place_of_the_probe() -> None:
    clock = ManualClock()
    probe = ScriptedProbe(GONE)
    breaker = CircuitBreaker(consecutive_failures=2, open_for=30, jitter=0)
    health = Health(max_age=0, clock=clock)
    health.add("payments", probe, breaker=breaker)
    for _ in range(2):
        assert (await health.run()).results["payments"].reason is Reason.FAILED
    for waited in (0, 10, 19.5):
        clock.advance(waited)
        report = await health.run()
        result = report.results["payments"]
        assert (report.code, result.status) == (503, FAILED)
        assert result.reason is Reason.CIRCUIT_OPEN
        assert result.retry_after == pytest.approx(30 - clock.now)
    assert probe.calls == 2
    probe.play(None)
    clock.advance(0.5)  # the trial is due, and whoever asks first sets it off
    assert (await health.run()).ok
    assert probe.calls == 3
    assert breaker.available
    await health.aclose()


async def test_a_refusal_is_remembered_for_no_longer_than_it_stands() -> None:
    clock = ManualClock()
    probe = ScriptedProbe(GONE, None)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=30, jitter=0)
    health = Health(max_age=3600, clock=clock)
    health.add("payments", probe, breaker=breaker)
    for _ in range(3):
        assert not (await health.run()).ok
        clock.advance(10)
    assert (await health.run()).ok
    assert probe.calls == 2
    await health.aclose()


async def test_a_breaker_that_opens_is_seen_at_once() -> None:
    breaker = CircuitBreaker()
    health = Health(clock=ManualClock())
    health.add("payments", ScriptedProbe(), breaker=breaker, critical=False)
    assert (await health.run()).status is OKAY
    breaker.force_open()
    report = await health.run()
    assert report.status is DEGRADED
    assert report.results["payments"].reason is Reason.CIRCUIT_OPEN
    assert report.results["payments"].retry_after is None
    breaker.reset()
    assert (await health.run()).status is OKAY


async def test_the_failure_that_opens_a_breaker_is_not_served_from_memory() -> None:
    probe = ScriptedProbe(GONE)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=30, jitter=0)
    health = Health(max_age=3600, clock=ManualClock())
    health.add("payments", probe, breaker=breaker)
    assert (await health.run()).results["payments"].reason is Reason.FAILED
    for group in ("ready", "payments"):
        result = (await health.run(group)).results["payments"]
        assert (result.reason, result.retry_after) == (Reason.CIRCUIT_OPEN, 30)
    assert probe.calls == 1
    await health.aclose()


async def test_a_background_check_tells_of_its_open_breaker() -> None:
    breaker = CircuitBreaker()
    health = Health(clock=ManualClock())
    health.add("payments", ScriptedProbe(), breaker=breaker, interval=3600)
    breaker.force_open()
    assert (await health.run()).results["payments"].reason is Reason.CIRCUIT_OPEN


# The log: once for each change, and not for each poll


async def test_who_reads_a_background_check_makes_no_trial() -> None:
    clock, probe = ManualClock(), ScriptedProbe()
    breaker = CircuitBreaker(consecutive_failures=1, open_for=10, jitter=0, clock=clock)
    health = Health(clock=clock)
    check = health.add("it", probe, interval=3600, breaker=breaker)
    with pytest.raises(ConnectionError), check.guard():
        raise ConnectionError
    clock.advance(10)
    assert (await health.run()).results["it"].reason is Reason.CIRCUIT_OPEN
    assert probe.calls == 0


async def test_changes_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="healthmw")
    refused = OSError("redis://:hunter2@cache refused")
    script = [None, None, refused, refused, refused, Degraded("slow"), None]
    health = Health(max_age=0)
    health.add("database", ScriptedProbe(*script))
    for _ in script:
        await health.run()
    told = [(record.levelname, record.message.splitlines()[0]) for record in caplog.records]
    assert told == [
        ("INFO", "check database: unknown -> okay"),
        (
            "ERROR",
            "check database: okay -> failed: OSError: redis://:***@cache refused",
        ),
        ("WARNING", "check database: failed -> degraded: slow"),
        ("INFO", "check database: degraded -> okay"),
    ]
    assert "hunter2" not in caplog.text
    # The traceback is the probe's own: how healthmw came to call it is of no interest.
    assert "in _next" in caplog.text
    assert "_runner.py" not in caplog.text


async def test_what_is_not_critical_is_no_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    health = Health()
    health.add("search", ScriptedProbe(GONE), critical=False)
    await health.run()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_failure_that_is_damped_is_not_logged_as_a_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    health = Health(max_age=0)
    health.add("it", ScriptedProbe(None, GONE), failure_threshold=3)
    for _ in range(3):
        await health.run()
    assert caplog.records == []
    await health.run()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_an_outage_is_logged_at_its_ends_and_not_at_each_trial(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="healthmw")
    clock = ManualClock()
    probe = ScriptedProbe(None, GONE)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=10, backoff=1, jitter=0)
    health = Health(max_age=0, clock=clock)
    health.add("payments", probe, breaker=breaker)
    for _ in range(5):
        await health.run()
        clock.advance(10)
    probe.play(None)
    await health.run()
    breaker.force_open()
    breaker.reset()
    told = [(record.levelname, record.message.splitlines()[0]) for record in caplog.records]
    assert told == [
        ("INFO", "check payments: unknown -> okay"),
        ("WARNING", "check payments: circuit closed -> open"),
        ("ERROR", "check payments: okay -> failed: ConnectionError: gone"),
        ("INFO", "check payments: circuit half_open -> closed"),
        ("INFO", "check payments: failed -> okay"),
        ("ERROR", "check payments: okay -> failed (circuit_open)"),
        ("WARNING", "check payments: circuit closed -> forced_open"),
        ("INFO", "check payments: failed -> okay"),
        ("INFO", "check payments: circuit forced_open -> closed"),
    ]
    await health.aclose()
