"""The app around a probe: a `Health` with one check, and what the process holds open for it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from healthmw import Health
from healthmw._probe import is_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw import Result
    from healthmw._probe import Probe

PATIENCE = 45.0
"""Seconds until the table takes a thing for broken; far more than a slow machine needs."""

_BAIT = re.compile(r"bait-[0-9a-f]{24}")
_PAUSE = 0.02
_COLLECT_AFTER = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is open at one moment."""

    connections: int
    threads: int
    files: int

    def __le__(self, other: Held) -> bool:
        return (
            self.connections <= other.connections
            and self.threads <= other.threads
            and self.files <= other.files
        )


class App:
    """Asks one probe through a `Health`, as an ASGI app does, or a WSGI app where it is sync."""

    def __init__(self, probe: Probe, *, timeout: float, connections: Callable[[], int]) -> None:
        self._connections = connections
        self._health = Health(max_age=0, deadline=2 * timeout)
        self._health.add("it", probe, timeout=timeout)
        self._async = is_async(probe)
        self._runner = asyncio.Runner()
        self._runner.run(asyncio.sleep(0))
        self.look_for_secrets = Witness().see
        self.look_for_secrets(repr(probe))

    def ask(self) -> Result:
        if self._async:
            report = self._runner.run(self._health.run(fresh=True))
        else:
            report = self._health.run_sync(fresh=True)
        result = report.results["it"]
        self.look_for_secrets(f"{report!r} {result.detail} {result.measurements}")
        return result

    def ask_until_well(self) -> Result:
        """Ask as a balancer does, again and again; return the last answer."""
        give_up = time.monotonic() + PATIENCE
        while not (result := self.ask()).ok and time.monotonic() < give_up:
            self.rest()
        return result

    def rest(self) -> None:
        """Let the event loop, and whatever else there is, do what is left to do."""
        self._runner.run(asyncio.sleep(_PAUSE))

    def held(self) -> Held:
        """Return what is open once that has not changed for a while."""
        since, last = time.monotonic(), self._held()
        give_up = since + PATIENCE
        while time.monotonic() < min(since + 10 * _PAUSE, give_up):
            self.rest()
            now = self._held()
            if now != last:
                since, last = time.monotonic(), now
        return last

    def held_again(self, before: Held) -> Held:
        """Wait until no more is open than `before`; return what is open in the end.

        What Python's garbage collector would close sooner or later it closes here after a while.
        """
        began = time.monotonic()
        while not (now := self._held()) <= before and time.monotonic() < began + PATIENCE:
            self.rest()
            if time.monotonic() > began + _COLLECT_AFTER:
                gc.collect()
        return now

    def close(self) -> None:
        self._runner.run(self._health.aclose())
        self.look_for_secrets(repr(self._health.checks))
        self._runner.close()

    def _held(self) -> Held:
        return Held(
            connections=self._connections(),
            # By the system's count: not all threads are Python's.
            threads=len(os.listdir("/proc/self/task")),  # noqa: PTH208 - counted, not opened
            files=len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        )


class Witness(logging.Handler):
    """Sees what the process says: each password in it, and each complaint of Python's own."""

    secrets: list[str] = []  # noqa: RUF012 - one list, whoever sees it
    complaints: list[str] = []  # noqa: RUF012

    def see(self, text: str) -> None:
        if found := _BAIT.search(text):
            self.secrets.append(text[max(found.start() - 80, 0) : found.end()])

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.see(text)
        if record.name == "asyncio" and record.levelno >= logging.ERROR:
            self.complaints.append(text)

    def watch(self, sys: Any) -> None:
        """See all log lines, and what nobody has caught."""
        self.setLevel(logging.INFO)
        logging.getLogger().addHandler(self)
        logging.getLogger().setLevel(logging.INFO)
        logging.captureWarnings(capture=False)
        sys.unraisablehook = lambda told: self.complaints.append(
            f"unraisable {told.exc_value!r} in {told.object!r}"
        )
        threading.excepthook = lambda told: self.complaints.append(
            f"{told.exc_value!r} in thread {told.thread}"
        )
