"""What systemd is told, by its own protocol: datagrams to a socket in the environment."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from healthmw import Health, Report
from healthmw.exceptions import ProbeFailedError
from healthmw.systemd import notify_systemd
from healthmw.testing import ScriptedProbe
from tests.broken_log import broken_log
from tests.waiting import PATIENCE, until, until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BROKEN = ProbeFailedError("gone")


class Systemd:
    """The socket of systemd, and what was said to it."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(PATIENCE)

    def hears(self) -> list[str]:
        """Return the lines of the next message. Raises `TimeoutError` where none comes."""
        return self._socket.recv(4096).decode().split("\n")

    def hears_nothing_for(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Systemd]:
    address = str(tmp_path / "notify")
    if request.param == "abstract":
        if sys.platform != "linux":
            pytest.skip("only Linux has abstract sockets")
        address = f"@healthmw-{os.getpid()}-{id(request)}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    server = Systemd(address.replace("@", "\0"))
    yield server
    server.close()


def test_it_is_ready_when_startup_has_passed_and_not_before(systemd: Systemd) -> None:
    health = Health(max_age=0)
    health.add("database", ScriptedProbe(BROKEN, None))
    end = notify_systemd(health)
    told = [systemd.hears() for _ in range(4)]
    end()
    ready = [index for index, lines in enumerate(told) if "READY=1" in lines]
    failed = [
        index for index, lines in enumerate(told) if "STATUS=failed: database (failed)" in lines
    ]
    assert len(ready) == 1
    assert failed
    assert min(failed) < ready[0]
    assert told[ready[0]] == ["READY=1", "STATUS=okay"]


def test_each_change_and_the_end_are_told(systemd: Systemd) -> None:
    probe = ScriptedProbe()
    health = Health(max_age=0)
    health.add("search", probe, critical=False)
    end = notify_systemd(health)
    until_ready(systemd)
    probe.play(BROKEN)
    health.run_sync()
    assert systemd.hears() == ["STATUS=degraded: search (failed)"]
    health.drain()
    assert systemd.hears() == ["STOPPING=1", "STATUS=failed: draining"]
    end()


def until_ready(systemd: Systemd) -> None:
    heard: list[str] = []
    while "READY=1" not in heard or "STATUS=okay" not in heard[heard.index("READY=1") + 2 :]:
        # The first result is a change too; it is told by another thread, before or after.
        heard += systemd.hears()
        if heard.count("STATUS=okay") == 2 and "READY=1" in heard:
            return


def test_the_watchdog_is_fed_while_live_passes_and_starved_when_it_fails(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    loop = ScriptedProbe()
    health = Health(max_age=0)
    health.add("database", ScriptedProbe(BROKEN))  # no reason to restart the app
    health.add("loop", loop, groups=["live"])
    end = notify_systemd(health, group="live")
    heard: list[str] = []
    while heard.count("WATCHDOG=1") < 3:
        heard += systemd.hears()
    loop.play(BROKEN)
    while not any("loop (failed)" in line for line in heard):
        heard += systemd.hears()
    assert systemd.hears_nothing_for(1.0)
    end()


@pytest.mark.parametrize(
    ("period", "pid"), [("", None), ("0", None), ("soon", None), ("200000", "1"), ("200000", "?")]
)
def test_a_watchdog_that_is_not_meant_is_not_fed(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, period: str, pid: str | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", period)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    health = Health()
    health.add("database", ScriptedProbe())
    notify_systemd(health)
    until_ready(systemd)
    until_sync(lambda: "healthmw-systemd" not in {t.name for t in threading.enumerate()})
    assert systemd.hears_nothing_for(0.1)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_from_the_lifespan_probes_run_on_the_apps_loop(systemd: Systemd) -> None:
    health, loops = Health(), []

    @health.probe("database")
    async def database() -> None:
        loops.append(asyncio.get_running_loop())

    end = notify_systemd(health)
    await until(lambda: loops)
    end()
    await health.aclose()
    assert loops[0] is asyncio.get_running_loop()


def failing_once(monkeypatch: pytest.MonkeyPatch) -> Health:
    """Return a health whose first round fails; the next one comes soon."""
    monkeypatch.setattr("healthmw.systemd._ROUND", 0.05)
    health = Health()
    health.add("database", ScriptedProbe())
    run, failures = health.run_sync, [RuntimeError("can't start new thread")]

    def fails_once(group: str) -> Report:
        if failures:
            raise failures.pop()
        return run(group)

    monkeypatch.setattr(health, "run_sync", fails_once)
    return health


def test_a_round_that_fails_is_logged_and_the_next_one_comes(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    health = failing_once(monkeypatch)
    end = notify_systemd(health)
    until_ready(systemd)
    end()
    assert "systemd is not told of startup: RuntimeError: can't start new thread" in caplog.text


def test_a_log_that_breaks_down_keeps_no_round_from_coming(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, breakdowns: list[BaseException]
) -> None:
    health = failing_once(monkeypatch)
    with broken_log():
        end = notify_systemd(health)
        until_ready(systemd)
        end()
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    probe = ScriptedProbe()
    health = Health()
    health.add("database", probe)
    notify_systemd(health)()
    assert probe.calls == 0


def test_a_socket_that_is_gone_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "healthmw")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    probe = ScriptedProbe()
    health = Health(max_age=0)
    health.add("database", probe, groups=["live"])
    end = notify_systemd(health)
    until_sync(lambda: probe.calls > 5)
    end()
    (said,) = (r.getMessage() for r in caplog.records)
    assert said.startswith("systemd can't be told: FileNotFoundError")


def test_a_group_that_is_not_there_is_named(systemd: Systemd) -> None:
    with pytest.raises(ValueError, match="no group or check 'web'"):
        notify_systemd(Health(), group="web")
