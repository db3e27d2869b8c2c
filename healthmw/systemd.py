"""Tells systemd when the app is ready, how it is, and that it is alive (`Type=notify`, watchdog).

The protocol is that of `sd_notify(3)`: datagrams to the socket that `NOTIFY_SOCKET` names.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

from healthmw._model import Status
from healthmw._scrub import outlived, scrub_exception
from healthmw._view import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from healthmw._health import Health
    from healthmw._listeners import StatusChange
    from healthmw._model import Report

__all__ = ("notify_systemd",)

_ROUND = 1.0  # seconds between two looks at a group that does not pass yet
_STATUS_SHOWN = 200

_logger = logging.getLogger("healthmw")


def notify_systemd(health: Health, *, group: str = "startup") -> Callable[[], None]:
    """Keep systemd informed from now on, from a thread of its own. Returns what ends it.

    - `READY=1` once `group` has passed: what the unit is ordered before waits for that.
    - `STATUS=`: the verdict in words, for `systemctl status`, at each change.
    - `WATCHDOG=1`, twice in each `WatchdogSec=`, while the group `live` passes. So a service whose
      own checks in `live` fail, or that hangs altogether, is restarted; one whose database is down
      is not.
    - `STOPPING=1` when the app begins to drain.

    Probes that use async clients of the app want the app's event loop: then call it there, in the
    app's lifespan. Call it in the process that systemd started, or set `NotifyAccess=all` in the
    unit. Without `NOTIFY_SOCKET` in the environment, so where systemd asked for nothing, it does
    nothing. Raises `ValueError` for a group that is not there.
    """
    health.members(group)
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return lambda: None
    reporter = _Reporter(health, group, address, _watchdog_seconds(os.environ))
    unsubscribe = health.subscribe(reporter.on_change)
    health.start()  # where this is the app's loop, probes run on it from the first round on
    reporter.start()

    def end() -> None:
        unsubscribe()
        reporter.ended.set()

    return end


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Return how often systemd wants to hear of this process; None: not at all."""
    try:
        period = int(environ.get("WATCHDOG_USEC", "")) / 1_000_000
        meant = int(environ.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    return period if period > 0 and meant == os.getpid() else None


class _Reporter:
    """One thread that looks, and one socket address that is told."""

    def __init__(self, health: Health, group: str, address: str, watchdog: float | None) -> None:
        self._health = health
        self._group = group
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._pause = None if watchdog is None else watchdog / 2
        self._silent = threading.Lock()
        self.ended = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._serve, name="healthmw-systemd", daemon=True).start()

    def on_change(self, event: StatusChange) -> None:
        if event.check is None:
            self._send("STOPPING=1", _status(event.report))
        else:
            self._send(_status(event.report))

    def _serve(self) -> None:
        ready, due = False, time.monotonic()
        while not self.ended.is_set():
            if not ready and (report := self._run(self._group)) is not None:
                ready = report.ok
                self._send(*["READY=1"] * ready, _status(report))
            if self._pause is not None and time.monotonic() >= due:
                if (report := self._run("live")) is not None and report.ok:
                    self._send("WATCHDOG=1")
                due = time.monotonic() + self._pause
            if ready and self._pause is None:
                return
            pauses = [] if ready else [_ROUND]
            pauses += [] if self._pause is None else [max(due - time.monotonic(), 0.0)]
            self.ended.wait(min(pauses))

    def _run(self, group: str) -> Report | None:
        try:
            return self._health.run_sync(group)
        except Exception as exc:  # noqa: BLE001 - no thread to be had, say; the next round may do
            with outlived():
                _logger.warning("systemd is not told of %s: %s", group, scrub_exception(exc))
            return None

    def _send(self, *lines: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_ROUND)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as exc:
            # Once is enough: it would be said twice a period. (Whoever holds it has said it.)
            if self._silent.acquire(blocking=False):
                with outlived():
                    _logger.warning("systemd can't be told: %s", scrub_exception(exc))


def _status(report: Report) -> str:
    faults = [
        f"{r.name} ({r.reason})" for r in report.results.values() if r.status is not Status.OKAY
    ]
    if report.reason is not None:
        faults = [str(report.reason)]
    said = f"{report.status}: {', '.join(faults)}" if faults else str(report.status)
    return f"STATUS={printable(said, _STATUS_SHOWN)}"
