"""A breaker's news for its listeners: in order, one at a time, never under the breaker's lock."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakMethod

from healthmw._in_order import InOrder
from healthmw._native import Lock
from healthmw._scrub import log_exception, outlived

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw._breaker_state import BreakerEvent

    Listener = Callable[[BreakerEvent], object]

_logger = logging.getLogger("healthmw")

_UNTOLD_AT_MOST = 1000


class _Subscription(NamedTuple):
    listener: Callable[[], Listener | None]
    """What returns the listener: a weak method, for one that may be gone."""
    rejected: bool


class Events(InOrder["BreakerEvent"]):
    """Delivers what is `put` to every listener."""

    __slots__ = ("_changing", "_subscriptions", "rejections_heard")

    def __init__(self) -> None:
        self._subscriptions: tuple[_Subscription, ...] = ()
        self.rejections_heard = False
        super().__init__()

    def after_fork(self) -> None:
        """Renew the locks, as `InOrder` does."""
        super().after_fork()
        self._changing = Lock()

    def subscribe(
        self, listener: Listener | WeakMethod[Listener], *, rejected: bool
    ) -> Callable[[], None]:
        """Call `listener(event)` from now on. Returns what ends it, which may be called twice.

        A weak method is forgotten when its object is gone.
        """
        get = listener if isinstance(listener, WeakMethod) else lambda: listener
        ours = _Subscription(get, rejected)

        def unsubscribe() -> None:
            with self._changing:
                self._set([one for one in self._subscriptions if one is not ours])

        with self._changing:
            self._set([*self._subscriptions, ours])
        return unsubscribe

    def _set(self, subscriptions: list[_Subscription]) -> None:
        alive = [one for one in subscriptions if one.listener() is not None]
        self._subscriptions = tuple(alive)
        self.rejections_heard = any(one.rejected for one in alive)

    def put(self, event: BreakerEvent) -> None:
        """Add `event`; `deliver` is to be called once no lock is held."""
        if not self._subscriptions:
            return
        if event.kind == "rejected" and len(self.waiting) >= _UNTOLD_AT_MOST:
            return  # a listener hangs; the snapshot has the number
        self.waiting.append(event)

    def deliver(self) -> None:
        """Call the listeners, unless another thread (or a caller of this one) is at it already."""
        self.hand_on(self._tell)

    def _tell(self, event: BreakerEvent) -> None:
        for get, rejected in self._subscriptions:
            listener = get()
            if listener is None or (event.kind == "rejected" and not rejected):
                continue
            try:
                listener(event)
            except Exception as exc:  # noqa: BLE001 - a listener's failure is nobody's but its own
                with outlived():
                    # With the exception that the event is due to, which comes from a driver.
                    log_exception(_logger, exc, "a listener raised on %r", event)
