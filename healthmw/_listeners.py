"""Tells listeners of changes, each on a thread of its own: none delays a check or another one."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import anyio

from healthmw._native import Condition, RLock, start_real_thread
from healthmw._options import WrongTypeError
from healthmw._scrub import outlived, scrub_exception

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from healthmw._model import Reason, Report, Status

_UNTOLD_AT_MOST = 100
_ONE_AT_MOST = 30.0  # seconds that an async listener may take for one event
_FAREWELL = 1.0  # seconds that closing waits for what is still to be told

logger = logging.getLogger("healthmw")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """A check's verdict changed, or the app began to drain. What listeners are called with."""

    check: str | None
    """The check's name. None: the app drains, and `ready` fails from now on."""
    old: Status
    new: Status
    reason: Reason
    critical: bool
    detail: str = field(default="", repr=False)
    """For the log and for authorised eyes: scrubbed of credentials, yet not for the public."""
    when: datetime
    """Aware, UTC."""
    report: Report = field(repr=False)
    """The report of the group `ready` after the change, from what was known then."""
    instance: str
    """Which process speaks: the platform's name for the machine (`DYNO`), or its host name, and
    the process id."""

    @property
    def release(self) -> str | None:
        """The release that runs here, as in the report."""
        return self.report.release


class Listener(Protocol):
    """What `Health.subscribe` takes: a function of one `StatusChange`, sync or async."""

    def __call__(self, event: StatusChange, /) -> Awaitable[object] | object:
        """Take note. What is raised is logged and goes no further."""


def instance_id() -> str:
    """Name this process among all that run the app."""
    import socket

    return f"{os.environ.get('DYNO') or socket.gethostname()}:{os.getpid()}"


class Outlet:
    """Events on their way to one listener: in order, on one thread, at most 100 waiting.

    Its state is guarded by its lock. The thread begins with the first event and ends with `close`,
    and a later event begins another. An async listener has one event loop for as long.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._name = getattr(listener, "__qualname__", type(listener).__qualname__)
        self.dropped = 0
        self._removed = False
        self.after_fork()

    def after_fork(self) -> None:
        """Forget what waits: it is the parent's news, and the parent tells it."""
        # An RLock: a signal's handler may drain in the middle of what its thread was telling.
        self._news = Condition(RLock())
        self._waiting: deque[StatusChange] = deque()
        self._busy = False
        self._serving = False  # whether there is a thread
        self._ending = False  # whether that is to end

    def put(self, event: StatusChange) -> None:
        """Have the listener told, unless it is removed or too much is waiting for it already."""
        with self._news:
            if self._removed:
                return
            if len(self._waiting) >= _UNTOLD_AT_MOST:
                self.dropped += 1
                first = self.dropped == 1
            else:
                first = False
                self._waiting.append(event)
                self._ending = False
                if not self._serving:
                    self._begin()
                self._news.notify_all()
        if first:
            with outlived():
                logger.warning(
                    "listener %s is too slow: %d events wait for it, and others are dropped",
                    self._name,
                    _UNTOLD_AT_MOST,
                )

    def _begin(self) -> None:
        try:
            start_real_thread(self._serve, "healthmw-listener")
        except RuntimeError:  # the system gives no thread now: the next event tries again
            return
        self._serving = True

    def _serve(self) -> None:
        import asyncio

        runner = asyncio.Runner()  # it opens its loop when there is something to run
        try:
            while True:
                with self._news:
                    event = self._next()
                    self._busy = event is not None
                if event is None:
                    return
                self._tell(event, runner)
        finally:
            runner.close()

    def _next(self) -> StatusChange | None:
        """Wait for the next event; None is the end of this thread. The caller holds the lock."""
        self._busy = False
        self._news.wait_for(lambda: self._waiting or self._ending)
        if self._ending:
            self._serving = False
            return None
        return self._waiting.popleft()

    def _tell(self, event: StatusChange, runner: asyncio.Runner) -> None:
        try:
            told = self._listener(event)
            if inspect.isawaitable(told):
                runner.run(_within_limit(told))
        except BaseException as exc:  # noqa: BLE001 - a listener's failure is nobody's but its own
            with outlived():
                logger.warning("listener %s failed: %s", self._name, scrub_exception(exc))

    @property
    def idle(self) -> bool:
        """Whether the listener has been told everything."""
        with self._news:
            return not self._waiting and not self._busy

    def close(self, *, removed: bool = False) -> None:
        """End the thread after the event it is telling; with `removed`, for good."""
        with self._news:
            self._ending = True
            self._removed = self._removed or removed
            self._news.notify_all()


async def _within_limit(awaitable: Awaitable[object]) -> None:
    import asyncio

    async with asyncio.timeout(_ONE_AT_MOST):
        await awaitable


class Listeners:
    """The listeners of one `Health`. Guarded by its lock."""

    def __init__(self) -> None:
        self._lock = RLock()  # a signal's handler may subscribe, too
        self._outlets: tuple[Outlet, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._outlets)

    def add(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` from now on. Returns what ends it, which may be called twice."""
        if not callable(listener):
            raise WrongTypeError(f"listener must be callable, not {type(listener).__name__}")
        outlet = Outlet(listener)
        with self._lock:
            self._outlets = (*self._outlets, outlet)

        def remove() -> None:
            with self._lock:
                self._outlets = tuple(known for known in self._outlets if known is not outlet)
            outlet.close(removed=True)

        return remove

    def put(self, event: StatusChange) -> None:
        """Have every listener told."""
        for outlet in self._outlets:
            outlet.put(event)

    @property
    def dropped(self) -> int:
        """How many events were dropped because a listener was too slow."""
        return sum(outlet.dropped for outlet in self._outlets)

    def after_fork(self) -> None:
        """Begin anew in the child."""
        self._lock = RLock()
        for outlet in self._outlets:
            outlet.after_fork()

    async def farewell(self) -> None:
        """Wait a little until all is told."""
        give_up = time.monotonic() + _FAREWELL
        while not all(outlet.idle for outlet in self._outlets):
            if time.monotonic() >= give_up:
                break
            await anyio.sleep(0.01)

    def close(self) -> None:
        """End the threads."""
        for outlet in self._outlets:
            outlet.close()
