"""What a process says at its start of times that don't fit together."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from healthmw import CircuitBreaker, Health, asgi, wsgi
from healthmw.testing import ScriptedProbe
from tests.broken_log import broken_log
from tests.transports import ask_wsgi


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "healthmw")
    return caplog


@pytest.mark.anyio
async def test_a_timeout_beyond_the_deadline_is_told_once(warned: pytest.LogCaptureFixture) -> None:
    health = Health(deadline=3)
    health.add("search", ScriptedProbe(), timeout=3)
    health.add("database", ScriptedProbe(), timeout=8)
    async with health:
        health.start()
    async with health:
        pass
    (line,) = warned.messages
    assert line == (
        "check database: timeout=8 is more than the deadline of 3 s: an answer leaves at the "
        "deadline, and calls this check timed out"
    )
    warned.clear()
    health.add("late", ScriptedProbe(), timeout=9)
    async with health:
        assert len(warned.messages) == 1
        assert "check late: timeout=9" in warned.messages[0]


def test_it_is_told_by_an_app_that_has_no_start_of_its_own(
    warned: pytest.LogCaptureFixture,
) -> None:
    health = Health()
    health.add("database", ScriptedProbe(), timeout=8)
    app = wsgi.HealthApp(health)
    assert warned.messages == []
    for path in ("/", "/database", "/live"):
        ask_wsgi(app, path=path)
    assert len(warned.messages) == 1


def test_a_log_that_breaks_down_costs_nobody_the_answer(breakdowns: list[BaseException]) -> None:
    health = Health(deadline=1)
    health.add("database", ScriptedProbe(), timeout=2)
    with broken_log():
        assert ask_wsgi(wsgi.HealthApp(health), path="/").body == b"OKAY"
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


@pytest.mark.anyio
async def test_a_background_check_may_take_longer_than_anyone_waits(
    warned: pytest.LogCaptureFixture,
) -> None:
    health = Health(deadline=3)
    health.add("report", ScriptedProbe(), timeout=20, interval=60)
    async with health:
        assert warned.messages == []


@pytest.mark.anyio
async def test_a_probe_that_may_take_longer_than_its_breaker_waits_for_a_trial(
    warned: pytest.LogCaptureFixture,
) -> None:
    health = Health()
    breaker = CircuitBreaker(half_open_max_wait=1.5)
    health.add("payments", ScriptedProbe(), timeout=2, breaker=breaker)
    health.add("search", ScriptedProbe(), timeout=2, breaker=CircuitBreaker())
    async with health:
        (line,) = warned.messages
        assert line == (
            "check payments: timeout=2 is more than half_open_max_wait=1.5 of its breaker: a "
            "trial that takes longer than that has failed, whatever comes of it"
        )


async def app(scope: object, receive: object, send: object) -> None: ...


@pytest.mark.parametrize(
    ("startup_timeout", "drain_delay", "told"),
    [
        (59.0, 29.0, []),
        (60.0, None, ["startup_timeout=60 is too long: Heroku ends the dyno after 60 s"]),
        (None, 45.0, ["drain_delay=45 is too long: Heroku ends the dyno after 30 s"]),
    ],
)
def test_what_a_platform_does_not_grant(
    startup_timeout: float | None,
    drain_delay: float | None,
    told: list[str],
    warned: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {"startup_timeout": startup_timeout, "drain_delay": drain_delay}
    monkeypatch.delenv("DYNO", raising=False)
    asgi.HealthMiddleware(app, Health(), **options)
    assert warned.messages == []
    monkeypatch.setenv("DYNO", "web.1")
    asgi.HealthMiddleware(app, Health(), **options)
    assert warned.messages == told
