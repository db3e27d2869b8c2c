"""Daemon threads for sync probes: bounded, reused, and given up when a probe does not come back.

Neither the event loop's default executor nor anyio's limiter is ever touched, so a hung probe can't
starve the app of threads; and no thread here keeps the process from exiting.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import sys
from collections import deque
from typing import TYPE_CHECKING

from healthmw._native import Condition, Lock, greened, start_thread
from healthmw._scrub import tell_uncaught

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE_SECONDS = 10.0
_LIMIT = 128


class Job:
    """One call under way or waiting for a thread. Its state belongs to the pool's lock."""

    __slots__ = ("_call", "abandoned", "running")

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self.running = False
        self.abandoned = False

    def __call__(self) -> None:
        self._call()


class DaemonThreads:
    """Runs calls in daemon threads, at most `limit` at once; the rest wait in line.

    An abandoned call no longer counts towards the limit: one that is stuck takes no place away from
    those that are well. The caller sees to it that abandoned calls are few (one a check).
    """

    def __init__(self, limit: int = _LIMIT, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self.after_fork()

    def after_fork(self) -> None:
        """Forget every thread and every waiting call: they are the parent's."""
        self._lock = Lock()
        self._work = Condition(self._lock)
        self._waiting: deque[Job] = deque()
        self._counted = 0
        self._idle = 0

    def start(self, call: Callable[[], None]) -> Job:
        """Run `call` in a thread as soon as there is a place for it.

        It should not raise; what it raises all the same goes to `sys.excepthook`. Raises
        `RuntimeError` when the system gives no further thread.
        """
        job = Job(call)
        with self._lock:
            self._waiting.append(job)
            try:
                self._assign()
            except (RuntimeError, MemoryError):
                self._waiting.remove(job)
                raise
        return job

    def abandon(self, job: Job) -> bool:
        """Give `job` up. Return True when it had not begun, and now never will."""
        with self._lock:
            if job.abandoned:
                return False
            job.abandoned = True
            if job.running:
                self._counted -= 1
                # No new thread: the next idle one takes it.
                with contextlib.suppress(RuntimeError, MemoryError):
                    self._assign()
                return False
            try:
                self._waiting.remove(job)
            except ValueError:  # it has ended already
                return False
            return True

    def _assign(self) -> None:
        """Wake or start threads for what may run now. The caller holds the lock."""
        startable = min(len(self._waiting), self._limit - self._counted)
        if startable <= 0:
            return
        if self._idle:
            self._work.notify(min(startable, self._idle))
        for _ in range(startable - self._idle):
            job = self._take()
            try:
                start_thread(functools.partial(self._serve, job), "healthmw-probe")
            except (RuntimeError, MemoryError):
                self._counted -= 1
                job.running = False
                self._waiting.append(job)
                raise

    def _take(self) -> Job:
        job = self._waiting.popleft()
        job.running = True
        self._counted += 1
        return job

    def _serve(self, job: Job | None) -> None:
        while job is not None:
            try:
                contextvars.Context().run(job)  # what one call sets, the next one must not see
            except BaseException as exc:  # noqa: BLE001 - nobody waits for it to be told
                with contextlib.suppress(BaseException):  # the app's hook may be broken, too
                    tell_uncaught(exc)
            _close_connections()
            with self._lock:
                if not job.abandoned:
                    self._counted -= 1
                job.running = False
                job = self._next()

    def _next(self) -> Job | None:
        """Wait a while for the next call. The caller holds the lock."""
        # A greenlet costs nothing, and one that waited here would stop all the others.
        if not (self._waiting and self._counted < self._limit) and not greened():
            self._idle += 1
            self._work.wait_for(
                lambda: self._waiting and self._counted < self._limit, self._idle_seconds
            )
            self._idle -= 1
        if self._waiting and self._counted < self._limit:
            return self._take()
        return None


def _close_connections() -> None:
    """Close what Django's ORM, where it is loaded, has opened for this thread.

    Django does so at the end of a request, and here none ends. What stayed open would be one
    connection a thread, and would fail for ever once the server has restarted.
    """
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    connections = getattr(sys.modules.get("django.db"), "connections", None)
    if connections is None or settings is None or not settings.configured:
        return
    with contextlib.suppress(Exception):  # DATABASES may be wrong, and Django says so elsewhere
        for connection in connections.all(initialized_only=True):
            with contextlib.suppress(Exception):  # it may be in any state
                connection.close()


THREADS = DaemonThreads()
