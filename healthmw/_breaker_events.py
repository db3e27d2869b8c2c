"""A breaker's news for its listeners: in order, one at a time, never under the breaker's lock."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from healthmw._native import Lock
from healthmw._scrub import log_exception, tell_uncaught

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw._breaker_state import BreakerEvent

    Listener = Callable[[BreakerEvent], object]

_logger = logging.getLogger("healthmw")

_UNTOLD_AT_MOST = 1000


class Events:
    """Delivers what is `put` to every listener.

    Several threads may have news at once. Whoever finds nobody delivering does it for all, so that
    listeners see events in the order of `put` and need no lock of their own.
    """

    __slots__ = ("_changing", "_delivering", "_listeners", "rejections_heard", "waiting")

    def __init__(self) -> None:
        self._listeners: tuple[tuple[Listener, bool], ...] = ()
        self.rejections_heard = False
        self.waiting: deque[BreakerEvent] = deque()
        self._delivering = Lock()
        self._changing = Lock()

    def after_fork(self) -> None:
        """Renew the locks: in the child, the thread that held one does not exist.

        What was waiting is the parent's news, and the parent tells it.
        """
        self.waiting.clear()
        self._delivering = Lock()
        self._changing = Lock()

    def subscribe(self, listener: Listener, *, rejected: bool) -> Callable[[], None]:
        """Call `listener(event)` from now on. Returns what ends it, which may be called twice."""
        entry = (listener, rejected)

        def unsubscribe() -> None:
            with self._changing:
                self._set(tuple(known for known in self._listeners if known is not entry))

        with self._changing:
            self._set((*self._listeners, entry))
        return unsubscribe

    def _set(self, listeners: tuple[tuple[Listener, bool], ...]) -> None:
        self._listeners = listeners
        self.rejections_heard = any(rejected for _, rejected in listeners)

    def put(self, event: BreakerEvent) -> None:
        """Add `event`; `deliver` is to be called once no lock is held."""
        if not self._listeners:
            return
        if event.kind == "rejected" and len(self.waiting) >= _UNTOLD_AT_MOST:
            return  # a listener hangs; the snapshot has the number
        self.waiting.append(event)

    def deliver(self) -> None:
        """Call the listeners, unless another thread (or a caller of this one) is at it already."""
        # Asked again after the release: what was put just before it found somebody at work.
        while self.waiting and self._delivering.acquire(blocking=False):
            try:
                while self.waiting:
                    self._tell(self.waiting.popleft())
            finally:
                self._delivering.release()

    def _tell(self, event: BreakerEvent) -> None:
        for listener, rejected in self._listeners:
            if event.kind == "rejected" and not rejected:
                continue
            try:
                listener(event)
            except Exception as exc:  # noqa: BLE001 - a listener's failure is nobody's but its own
                # With the exception that the event is due to, which comes from a driver.
                try:
                    log_exception(_logger, exc, "a listener raised on %r", event)
                except Exception as broken:  # noqa: BLE001 - and so is a log's
                    tell_uncaught(broken)
