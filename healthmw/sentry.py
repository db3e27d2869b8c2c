"""Checks in with Sentry's cron monitors as long as all is well (extra `sentry`)."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from healthmw._options import count, visible
from healthmw._scrub import outlived, scrub_exception
from healthmw.exceptions import MissingExtraError

try:
    from sentry_sdk.crons import MonitorStatus, capture_checkin
except ImportError as _exc:
    raise MissingExtraError("healthmw.sentry", extra="sentry") from _exc

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry_sdk.types import MonitorConfig

    from healthmw._health import Health

__all__ = ("check_in",)

_MINUTE = 60.0  # seconds

_logger = logging.getLogger("healthmw")


def check_in(
    health: Health, monitor_slug: str, *, every: int = 1, group: str = "ready"
) -> Callable[[], None]:
    """Run `group` every so many minutes from now on, and tell the monitor how it went.

    A pass is checked in as `ok`, a failure as `error`; of a process that hangs or is gone Sentry
    hears nothing, and says so after the period and as many minutes again. The monitor is made where
    there is none. It happens on a thread of its own; `sentry_sdk.init()` comes first. Probes that
    use async clients of the app want the app's event loop: then call it there, in the app's
    lifespan. Under a server that forks, call it in a worker: threads stay behind. Returns what ends
    it. Raises `ValueError` for options that make no sense, and for a group that isn't there.

    Failures themselves are in Sentry as well, without this: its logging integration takes the
    errors that healthmw logs when a critical check fails.
    """
    health.members(group)
    count("every", every)
    visible("monitor_slug", monitor_slug)
    health.start()  # where this is the app's loop, probes run on it from the first round on
    ended = threading.Event()
    config: MonitorConfig = {
        "schedule": {"type": "interval", "value": every, "unit": "minute"},
        "checkin_margin": every,
        "failure_issue_threshold": 1,
        "recovery_threshold": 1,
    }

    def serve() -> None:
        while not ended.is_set():
            began = time.monotonic()
            _tell(health, group, monitor_slug, config)
            ended.wait(max(_MINUTE * every - (time.monotonic() - began), 0.0))

    threading.Thread(target=serve, name="healthmw-sentry", daemon=True).start()
    return ended.set


def _tell(health: Health, group: str, monitor_slug: str, config: MonitorConfig) -> None:
    try:
        began = time.monotonic()
        report = health.run_sync(group)
        capture_checkin(
            monitor_slug=monitor_slug,
            status=MonitorStatus.OK if report.ok else MonitorStatus.ERROR,
            duration=time.monotonic() - began,
            monitor_config=config,
        )
    except Exception as exc:  # noqa: BLE001 - the next round must come, whatever befell this one
        with outlived():
            _logger.warning("checking in with Sentry: %s", scrub_exception(exc))
