"""Check-ins with Sentry, as its own SDK hands them to the network."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import sentry_sdk
from sentry_sdk.transport import Transport

from healthmw import Health
from healthmw.exceptions import ProbeFailedError
from healthmw.sentry import check_in
from healthmw.testing import ScriptedProbe
from tests.broken_log import broken_log
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry_sdk.envelope import Envelope


class Captured(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.items += [item for item in envelope.items if item.type == "check_in"]

    def checkins(self) -> list[dict[str, Any]]:
        return [item.payload.json for item in self.items]


@pytest.fixture
def sentry() -> Iterator[Captured]:
    transport = Captured()
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=transport,
        default_integrations=False,
        auto_enabling_integrations=False,  # or it imports every framework that is installed
        environment="test",
    )
    yield transport
    sentry_sdk.get_client().close()
    sentry_sdk.init(default_integrations=False, auto_enabling_integrations=False)


@pytest.mark.parametrize(("outcome", "status"), [(None, "ok"), (ProbeFailedError("x"), "error")])
def test_each_round_is_checked_in(
    sentry: Captured, outcome: ProbeFailedError | None, status: str
) -> None:
    health = Health()
    health.add("database", ScriptedProbe(outcome))
    end = check_in(health, "shop-ready", every=2)
    until_sync(sentry.checkins)
    end()
    (told,) = sentry.checkins()
    assert (told["monitor_slug"], told["status"]) == ("shop-ready", status)
    assert told["duration"] >= 0
    assert told["monitor_config"]["schedule"] == {"type": "interval", "value": 2, "unit": "minute"}
    assert told["monitor_config"]["checkin_margin"] == 2


def test_a_check_that_does_not_fail_the_app_is_no_error(sentry: Captured) -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    health.add("search", ScriptedProbe(ProbeFailedError("gone")), critical=False)
    end = check_in(health, "shop-ready")
    until_sync(sentry.checkins)
    end()
    assert sentry.checkins()[0]["status"] == "ok"


def test_a_round_that_fails_is_logged_and_the_next_one_comes(
    sentry: Captured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(**_: object) -> None:
        raise ConnectionError("http://user:cAnArY@sentry is gone")

    monkeypatch.setattr("healthmw.sentry.capture_checkin", fails)
    monkeypatch.setattr("healthmw.sentry._MINUTE", 0.01)
    health = Health(max_age=0)
    probe = ScriptedProbe()
    health.add("database", probe)
    end = check_in(health, "shop-ready")
    until_sync(lambda: probe.calls > 2)
    end()
    assert "checking in with Sentry: ConnectionError" in caplog.text
    assert "cAnArY" not in caplog.text


def test_a_log_that_breaks_down_keeps_no_round_from_coming(
    sentry: Captured, monkeypatch: pytest.MonkeyPatch, breakdowns: list[BaseException]
) -> None:
    def fails(**_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("healthmw.sentry.capture_checkin", fails)
    monkeypatch.setattr("healthmw.sentry._MINUTE", 0.01)
    health = Health(max_age=0)
    probe = ScriptedProbe()
    health.add("database", probe)
    with broken_log():
        end = check_in(health, "shop-ready")
        until_sync(lambda: probe.calls > 2)
        end()
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


def test_who_ends_it_ends_its_thread(sentry: Captured) -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    end = check_in(health, "shop-ready")
    (thread,) = (t for t in threading.enumerate() if t.name == "healthmw-sentry")
    end()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=0 must be"),
        ({"every": "1"}, "every must be a whole number, not str"),
        ({"group": "web"}, "no group"),
        ({"monitor_slug": ""}, "monitor_slug must be"),
        ({"monitor_slug": None}, "monitor_slug must be a str"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_in(Health(), **{"monitor_slug": "shop-ready", **options})
