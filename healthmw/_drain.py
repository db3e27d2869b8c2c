"""SIGTERM: first drain for a while, then let the server's own handler have the signal.

The handler of a server is put off, never replaced: it is called in the end, whatever happens in
between. What runs inside of a signal handler interrupts code that may hold any lock, so ours does
nothing but tell a thread, by a queue that is made for that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from queue import Empty
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from healthmw._native import get_ident, in_main_thread, new_queue, start_real_thread
from healthmw._options import seconds
from healthmw._scrub import log_exception, outlived
from healthmw._timings import warn_of_platform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from healthmw._health import Health

_ECHO = 2.0
"""A SIGTERM that comes sooner after the first (in seconds) counts as the same.

Heroku and systemd send it to all processes, and so do masters to their workers: it comes twice.
"""

logger = logging.getLogger("healthmw")


class Drainer:
    """Drains the `Health`s of this process before its server stops. Armed in the main thread."""

    def __init__(self) -> None:
        self._delays: WeakKeyDictionary[Health, float] = WeakKeyDictionary()
        self._watch: _Watch | None = None

    def add(self, health: Health, delay: float | None) -> bool:
        """Have `health` drain for `delay` seconds, and return True; False for None.

        It does so once `arm()` was called in this process. Not in a server that `healthmw smoke`
        tries: nobody is routed to it, and who stops it waits. Raises as `seconds()` does.
        """
        if delay is None:
            return False
        delay = seconds("drain_delay", delay, zero=True)
        warn_of_platform("drain_delay", delay)
        if os.environ.get("HEALTHMW_SMOKE"):
            return False
        self._delays[health] = max(delay, self._delays.get(health, 0.0))
        return True

    def arm(self, *, again: bool = False) -> bool:
        """Put off the server's handler; return whether there is one that can be.

        It can't be in other threads than the main one, and where the server has none: there the
        process ends at once, as it would without us. Safe to call on each request; `again` looks
        anew whether our handler still stands.
        """
        watch = self._watch if self._watch is not None and self._watch.is_ours else None
        if watch is not None and (watch.stands or not again):
            return True
        if not self._delays or not in_main_thread():
            return False
        if not hasattr(signal, "pthread_kill"):  # Windows: nobody sends it there
            return False
        handler = signal.getsignal(signal.SIGTERM)
        if not callable(handler):
            return False
        if watch is not None:
            watch.stand_aside()
        watch = _Watch(self._delays)
        self._watch = watch if watch.begin(handler) else None  # or nobody would try again
        return self._watch is not None


class _Watch:
    """Waits for the SIGTERM of one process, and stands before one handler."""

    def __init__(self, delays: Mapping[Health, float]) -> None:
        self._delays = delays
        self._pid = os.getpid()
        self._heard = new_queue()
        self._thread = get_ident()  # the main one, as `begin` is called there
        self._passes = False
        self._original: Callable[[int, Any], object] = _ignore
        self._handler: Any = None
        self._on_loop = False

    @property
    def is_ours(self) -> bool:
        """Whether this is the process where it began: a thread does not survive a fork."""
        return self._pid == os.getpid()

    @property
    def stands(self) -> bool:
        """Whether ours is still the handler. On a loop that can't be known, so there it is not."""
        ours = bool(signal.getsignal(signal.SIGTERM) == self._handler)
        return ours and not self._on_loop and not self._passes

    def begin(self, handler: Callable[[int, Any], object]) -> bool:
        """Stand before `handler`; return whether that can be done."""
        loop = _running_loop()
        on_loop = None if loop is None else _callback(loop, handler)
        if on_loop is not None and not callable(on_loop):
            return False
        try:
            start_real_thread(self._wait, "healthmw-drain")
        except RuntimeError:  # no thread to be had
            return False
        if loop is not None and on_loop is not None:
            # The loop hears of a signal by itself, without its handler: ask the loop, then.
            self._on_loop, self._original = True, on_loop
            loop.add_signal_handler(signal.SIGTERM, self._on_signal, signal.SIGTERM, None)
        else:
            self._original = handler
            signal.signal(signal.SIGTERM, self._on_signal)
        self._handler = signal.getsignal(signal.SIGTERM)
        return True

    def stand_aside(self) -> None:
        """Let every signal pass."""
        self._passes = True
        self._heard.put(False)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._passes or not self.is_ours:
            self._original(number, frame)
        else:
            self._heard.put(True)

    def _wait(self) -> None:
        if not self._heard.get():
            return
        began = time.monotonic()
        try:
            self._drain(began)
        finally:  # whatever happens, the server gets its signal
            self._passes = True
            # Once more, so that the server's own handler runs where and as it would have.
            if callable(signal.getsignal(signal.SIGTERM)):
                signal.pthread_kill(self._thread, signal.SIGTERM)

    def _drain(self, began: float) -> None:
        delays = dict(self._delays)
        for health in delays:
            try:
                health.drain()
            except Exception as exc:  # noqa: BLE001 - the others are to drain all the same
                with outlived():
                    log_exception(logger, exc, "draining failed")
        until = began + max(delays.values(), default=0.0)
        with outlived():
            logger.info("SIGTERM: the server is to shut down in %.1f s", until - began)
        while (left := until - time.monotonic()) > 0:
            try:
                self._heard.get(timeout=left)
            except Empty:
                return
            if time.monotonic() - began >= _ECHO:
                with outlived():
                    logger.info("SIGTERM again: the server shuts down at once")
                return


DRAINER = Drainer()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _callback(loop: asyncio.AbstractEventLoop, handler: object) -> Any:
    """Return what `loop` itself would do on SIGTERM.

    None where it does nothing, for the server has set a handler with `signal.signal()`; False where
    that can't be known.
    """
    handles = getattr(loop, "_signal_handlers", {})
    if signal.SIGTERM in handles:
        handle = handles[signal.SIGTERM]
        return lambda _number, _frame: handle._run()  # noqa: SLF001 - asyncio has no public way
    if getattr(handler, "__self__", None) is not loop:
        return None
    # uvloop doesn't tell what it would do. Servers mean the same by SIGINT as by SIGTERM, all but
    # gunicorn's own ASGI worker.
    on_interrupt = signal.getsignal(signal.SIGINT)
    same = getattr(on_interrupt, "__self__", None) is loop
    if not same or "gunicorn.workers.gasgi" in sys.modules:
        return False
    return lambda _number, _frame: signal.raise_signal(signal.SIGINT)


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: there is no handler yet."""
