"""Verdicts: the table, groups, codes, draining, and startup's latch."""

from __future__ import annotations

import gc
import logging
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthmw import Check, CircuitBreaker, Degraded, Health, Reason, Status
from healthmw.testing import ManualClock, ScriptedProbe
from tests.waiting import InThread, until

if TYPE_CHECKING:
    from healthmw import Report

anyio_too = pytest.mark.anyio

OKAY, DEGRADED, UNKNOWN, FAILED = Status.OKAY, Status.DEGRADED, Status.UNKNOWN, Status.FAILED
GONE = ConnectionError("gone")


def add(health: Health, name: str, status: Status, **policy: Any) -> Check:
    """Add a check whose verdict is `status`."""
    if status is UNKNOWN:  # it runs in the background only, which nobody has started
        return health.add(name, ScriptedProbe(), interval=3600, **policy)
    outcome = {OKAY: None, DEGRADED: Degraded("slow"), FAILED: GONE}[status]
    return health.add(name, ScriptedProbe(outcome, is_async=False), **policy)


# The table of the design's third section: a row is (status, critical), its columns are the groups'
# verdict and code.
LENIENT = {OKAY: 200, DEGRADED: 200, UNKNOWN: 503, FAILED: 503}
STRICT = LENIENT | {DEGRADED: 503}
GROUPS = {"ready": LENIENT, "live": LENIENT, "startup": LENIENT, "release": STRICT, "own": LENIENT}
ROWS = [
    # status, critical, the verdict that a group takes from it
    (OKAY, True, OKAY),
    (DEGRADED, True, DEGRADED),
    (UNKNOWN, True, UNKNOWN),
    (FAILED, True, FAILED),
    (OKAY, False, OKAY),
    (DEGRADED, False, DEGRADED),
    (UNKNOWN, False, DEGRADED),
    (FAILED, False, DEGRADED),
]


@anyio_too
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(("status", "critical", "verdict"), ROWS)
async def test_the_table_of_verdicts(
    group: str, status: Status, critical: bool, verdict: Status
) -> None:
    health = Health(release="v42")
    health.group("own")
    add(health, "it", status, critical=critical, groups=["live", "own"])
    add(health, "fine", OKAY, groups=["live", "own"])
    report = await health.run(group)
    assert report.group == group
    assert report.status is verdict
    assert report.code == GROUPS[group][verdict]
    assert report.ok is (report.code == 200)
    assert report.reason is None
    assert report.release == "v42"
    assert list(report.results) == ["it", "fine"]
    assert report.results["it"].status is status
    assert report.results["it"].critical is critical


@anyio_too
@pytest.mark.parametrize(("status", "critical", "_verdict"), ROWS)
async def test_one_check_answers_at_its_own_severity(
    status: Status, critical: bool, _verdict: Status
) -> None:
    health = Health()
    add(health, "it", status, critical=critical)
    add(health, "other", FAILED)
    report = await health.run("it")
    assert (report.group, report.status, report.code) == ("it", status, LENIENT[status])
    assert list(report.results) == ["it"]


@given(st.lists(st.tuples(st.sampled_from(list(Status)), st.booleans()), min_size=1, max_size=4))
def test_a_report_is_the_worst_of_its_checks(checks: list[tuple[Status, bool]]) -> None:
    health = Health()
    for number, (status, critical) in enumerate(checks):
        add(health, f"check-{number}", status, critical=critical)
    severities = [
        status.severity if critical else min(status.severity, 1) for status, critical in checks
    ]
    assert health.run_sync().status.severity == max(severities)


# Who is in which group


@anyio_too
async def test_members() -> None:
    health = Health()
    health.group("nightly", checks=["late"])
    health.add("plain", ScriptedProbe())
    health.add("alive", ScriptedProbe(), groups=["live"])
    health.add("schema", ScriptedProbe(), groups=["release"])
    health.add("both", ScriptedProbe(), groups=["release", "ready"])
    health.add("late", ScriptedProbe(), groups=iter(["nightly", "live"]))
    for group, members in {
        "ready": ["plain", "alive", "both", "late"],
        "startup": ["plain", "alive", "both", "late"],
        "release": ["plain", "alive", "schema", "both", "late"],
        "live": ["alive", "late"],
        "nightly": ["late"],
    }.items():
        assert list((await health.run(group)).results) == members, group


@anyio_too
async def test_live_takes_members_by_name_too() -> None:
    health = Health()
    health.add("loop", ScriptedProbe(GONE))
    health.add("database", ScriptedProbe(GONE))
    assert (await health.run("live")).ok
    health.group("live", checks=["loop"])
    report = await health.run("live")
    assert list(report.results) == ["loop"]
    assert not report.ok


def test_names_are_known_to_their_health() -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    for name in ("database", "ready", "live", "startup", "release"):
        assert name in health
    for unknown in ("data", "", None, 5):
        assert unknown not in health


@anyio_too
async def test_what_has_no_such_name_is_no_report() -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    words = "there is no group or check 'databse', only ready, live, startup, release, database"
    with pytest.raises(ValueError, match=words):
        await health.run("databse")
    with pytest.raises(ValueError, match=words):
        health.run_sync("databse")


@anyio_too
@pytest.mark.parametrize("group", ["ready", "startup", "release"])
async def test_without_any_check_nothing_is_known(group: str) -> None:
    report = await Health().run(group)
    assert (report.status, report.code) == (UNKNOWN, 503)
    assert report.reason is Reason.NO_CHECKS
    assert report.results == {}


@anyio_too
async def test_live_may_be_empty_for_it_answers() -> None:
    health = Health()
    report = await health.run("live")
    assert (report.status, report.code, report.reason) == (OKAY, 200, None)
    add(health, "database", FAILED)
    assert (await health.run("live")).ok


@anyio_too
async def test_a_group_of_ones_own_that_names_nothing_is_an_error_and_never_a_pass() -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    health.group("nightly")
    words = r"group 'nightly' has no checks, .* put some in it \(groups=\['nightly'\]\)"
    with pytest.raises(ValueError, match=words):
        health.validate()
    with pytest.raises(ValueError, match=words):
        async with health:
            pytest.fail("it began")
    report = await health.run("nightly")
    assert (report.status, report.code) == (UNKNOWN, 503)
    health.add("backup", ScriptedProbe(), groups=["nightly"])
    assert (await health.run("nightly")).ok
    async with health:
        assert (await health.run("nightly")).ok


@anyio_too
@pytest.mark.parametrize("group", ["nightly", "live"])
@pytest.mark.parametrize("names", [["databse"], ["database", "databse"]], ids=str)
async def test_a_group_that_names_what_is_no_check(group: str, names: list[str]) -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    health.group(group, checks=names)
    with pytest.raises(ValueError, match=f"group '{group}' names 'databse', which is no check"):
        health.validate()
    assert not (await health.run(group)).ok
    health.add("databse", ScriptedProbe())
    health.validate()
    assert (await health.run(group)).ok


# Codes


@anyio_too
async def test_a_partial_map_of_codes_is_laid_over_the_defaults() -> None:
    health = Health()
    health.group("own", codes={"degraded": 429, Status.UNKNOWN: 500})
    for number, status in enumerate(Status):
        add(health, f"c{number}", status, groups=["own"])
    health.group("only", checks=["c0"])
    assert (await health.run("own")).code == 503  # what is not in the map keeps its default
    expected = {OKAY: 200, DEGRADED: 429, UNKNOWN: 500, FAILED: 503}
    for status, code in expected.items():
        fresh = Health()
        fresh.group("own", codes={"degraded": 429, Status.UNKNOWN: 500})
        add(fresh, "it", status, groups=["own"])
        report = await fresh.run("own")
        assert (report.status, report.code) == (status, code)
        assert report.ok is (code == 200)
        assert (await fresh.run("ready")).code == LENIENT[status]  # and no other group's change


@anyio_too
async def test_the_codes_of_a_built_in_group_can_be_changed_step_by_step() -> None:
    health = Health()
    health.add("it", ScriptedProbe(Degraded()))
    assert (await health.run("release")).code == 503
    health.group("release", codes={"failed": 500})
    assert (await health.run("release")).code == 503  # its own default is kept
    health.group("release", codes={"degraded": 200, "unknown": 400})
    assert (await health.run("release")).code == 200  # the report in memory is not served
    add(health, "other", FAILED)
    assert (await health.run("release")).code == 500  # and so is what was changed before


@anyio_too
async def test_changing_the_codes_of_live_leaves_its_members() -> None:
    health = Health()
    health.group("live", checks=["loop"])
    health.group("live", codes={"failed": 500})
    health.add("loop", ScriptedProbe(GONE))
    report = await health.run("live")
    assert list(report.results) == ["loop"]
    assert report.code == 500


# Draining


@anyio_too
async def test_draining_fails_ready_at_once_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="healthmw")
    health = Health()
    probe = ScriptedProbe()
    health.add("database", probe, groups=["live"])
    assert (await health.run()).ok
    assert not health.draining
    health.drain()
    health.drain()
    assert health.draining
    report = await health.run()
    assert (report.status, report.code, report.reason) == (FAILED, 503, Reason.DRAINING)
    assert report.results["database"].status is OKAY  # it says of each check what is so
    assert health.run_sync().reason is Reason.DRAINING
    for group in ("live", "startup", "release", "database"):
        report = await health.run(group)
        assert report.ok
        assert report.reason is None
    assert [r.message for r in caplog.records if "draining" in r.message] == [
        "draining: ready fails from now on"
    ]


@anyio_too
@pytest.mark.parametrize("fresh", [False, True])
async def test_who_drains_asks_nobody_whether_it_is_ready(fresh: bool) -> None:
    clock = ManualClock()
    health = Health(clock=clock)
    probe, never = ScriptedProbe(), ScriptedProbe()
    health.add("database", probe)
    await health.run()
    health.add("later", never)
    health.drain()
    clock.advance(60)
    report = await health.run(fresh=fresh)
    assert report.reason is Reason.DRAINING
    assert report.results["database"].status is OKAY
    assert report.results["later"].reason is Reason.NEVER_RUN
    assert (probe.calls, never.calls) == (1, 0)
    assert (await health.run("database")).ok  # other questions are answered as ever
    assert probe.calls == 2


@anyio_too
async def test_an_empty_health_drains_too() -> None:
    health = Health()
    health.drain()
    report = await health.run()
    assert (report.status, report.reason) == (FAILED, Reason.DRAINING)
    assert (await health.run("live")).ok


# Startup: once passed it stays passed


@anyio_too
async def test_startup_stays_passed() -> None:
    clock = ManualClock()
    probe = ScriptedProbe(GONE, None, GONE)
    health = Health(clock=clock)
    health.add("database", probe)
    first = await health.run("startup")
    assert (first.status, first.code) == (FAILED, 503)
    clock.advance(1)
    passed = await health.run("startup")
    assert passed.ok
    clock.advance(1)
    assert not (await health.run("ready")).ok
    assert probe.calls == 3
    for fresh in (False, True, False):
        assert (await health.run("startup", fresh=fresh)).ok
        assert health.run_sync("startup", fresh=fresh).ok
    assert probe.calls == 3  # and nobody is asked any more
    add(health, "another", FAILED)
    assert (await health.run("startup")).ok
    health.drain()
    assert (await health.run("startup")).ok


@anyio_too
async def test_a_degraded_start_is_a_start() -> None:
    health = Health(max_age=0)
    health.add("search", ScriptedProbe(GONE), critical=False)
    probe = ScriptedProbe(None, GONE)
    health.add("database", probe)
    assert (await health.run("startup")).status is DEGRADED
    assert (await health.run("startup")).ok
    assert probe.calls == 1


@anyio_too
async def test_who_looked_before_it_passed_does_not_take_it_back() -> None:
    flaky = ScriptedProbe(GONE, None, is_async=False)
    slow = ScriptedProbe(is_async=False)
    health = Health(max_age=0)
    check = health.add("flaky", flaky)
    health.add("slow", slow)
    slow.hang()
    reports: list[Report] = []

    async def look() -> None:
        reports.append(await health.run("startup"))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await until(lambda: slow.running and check.status is FAILED)
        other = threading.Thread(target=health.run_sync, args=("startup",))
        other.start()
        await until(lambda: check.status is OKAY)
        slow.release()
        other.join()  # while this loop stands still it passes there
        assert health.peek("startup") is not None
    assert [report.ok for report in reports] == [True]
    assert (await health.run("startup")).ok


def test_the_garbage_of_one_health_does_not_hold_up_the_next_at_their_breaker() -> None:
    breaker = CircuitBreaker()

    class Collecting:
        """In place of the lock under which one comes to the breaker."""

        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __enter__(self) -> None:
            self.lock.acquire()
            gc.collect()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    # White-box: the garbage may be collected at any step, and no public name leads to this one.
    breaker._events._changing = Collecting()  # type: ignore[assignment]

    def come_and_go() -> None:
        for _ in range(3):
            Health().add("payments", ScriptedProbe(), breaker=breaker)

    InThread(come_and_go).result()


@pytest.mark.parametrize("fresh", [True, False])
def test_the_checks_that_are_wanted_may_come_from_a_generator(fresh: bool) -> None:
    health = Health()
    health.add("a", ScriptedProbe())
    health.add("b", ScriptedProbe(GONE))
    assert health.run_sync(only=(name for name in ["a"]), fresh=fresh).ok  # type: ignore[arg-type]
    assert set(anyio.run(lambda: health.run(only=iter(["a"]))).results) == {"a"}  # type: ignore[arg-type]
