"""Threads and locks of the operating system, where gevent has put greenlets in their place.

`gevent.monkey.patch_all()` makes every thread a greenlet, and every lock one for greenlets. That is
right for the app's own code, and for its sync probes, which use the app's clients: they run as
greenlets on its hub. It is wrong for healthmw's event loop, which shall go on while the app is
busy: that needs a real thread, and locks that both sides can share.

A lock from here must never be held over a switch of greenlets, for whoever waits for it stops them
all. gevent itself is never imported, only found.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from queue import SimpleQueue


def greened() -> bool:
    """Tell whether what `threading` calls a thread is a greenlet by now."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _original(name: str, module: str = "_thread") -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(importlib.import_module(module), name)
    return monkey.get_original(module, name)


# Taken now, they stay what they are if the patching comes later, as with `gunicorn --preload`.
Lock: Callable[[], threading.Lock] = _original("allocate_lock")
RLock: Callable[[], Any] = _original("RLock")
get_ident: Callable[[], int] = _original("get_ident")
_start_new_thread: Callable[[Callable[[], None], tuple[()]], int] = _original("start_new_thread")


class Condition(threading.Condition):
    """A condition that real threads wait for. Its lock is to be given, and a real one."""

    def wait(self, timeout: float | None = None) -> bool:
        """Do what the original does, with a real lock to wait at."""
        waiter = Lock()
        waiter.acquire()
        waiters: deque[threading.Lock] = self._waiters  # type: ignore[attr-defined]  # typeshed
        waiters.append(waiter)
        saved = self._release_save()  # type: ignore[attr-defined]  # hides the inside
        woken = False
        try:
            woken = waiter.acquire(timeout=-1 if timeout is None else timeout)
            return woken
        finally:
            self._acquire_restore(saved)  # type: ignore[attr-defined]
            if not woken:
                with contextlib.suppress(ValueError):
                    waiters.remove(waiter)


class Arrival(Protocol):
    """What one thread, or greenlet, waits for. Any thread may set it."""

    def set(self) -> None:
        """Wake who waits."""

    def is_set(self) -> bool:
        """Tell whether it is set."""

    def wait(self, timeout: float) -> bool:
        """Wait for so many seconds at most; return whether it is set."""


def arrival() -> Arrival:
    """Return one to be waited for here, with nobody else held up."""
    return _GreenArrival() if greened() else threading.Event()


class _GreenArrival:
    """A hub is woken from another thread by one way alone; all else belongs to its own."""

    def __init__(self) -> None:
        self._hub = _current_hub()
        self._event = importlib.import_module("gevent.event").Event()

    def set(self) -> None:
        self._hub.loop.run_callback_threadsafe(self._event.set)

    def is_set(self) -> bool:
        return bool(self._event.is_set())

    def wait(self, timeout: float) -> bool:
        return bool(self._event.wait(timeout))


def start_real_thread(main: Callable[[], None], name: str) -> None:
    """Run `main` in a daemon thread of the system's. Raises `RuntimeError` when there is none."""
    if greened():
        _start_new_thread(main, ())  # nameless: only the patched `threading` keeps names
    else:
        threading.Thread(target=main, name=name, daemon=True).start()


class _Home:
    """The hub of the app: of whoever asked first, until a fork."""

    hub: Any = None


def settle() -> None:
    """Note that this is a thread of the app's, to which `start_thread` shall come back."""
    if greened() and _Home.hub is None:
        _Home.hub = _current_hub()


def after_fork() -> None:
    """Forget the hub: it is the parent's."""
    _Home.hub = None


def start_thread(main: Callable[[], None], name: str) -> None:
    """Run `main` in a daemon thread; under gevent, in a greenlet of the app's hub.

    Raises `RuntimeError` when the system gives no further thread.
    """
    if not greened():
        threading.Thread(target=main, name=name, daemon=True).start()
        return
    settle()
    _Home.hub.loop.run_callback_threadsafe(sys.modules["gevent"].spawn, main)


def spawn_here(main: Callable[[], None]) -> None:
    """Run `main` in a greenlet of this thread's own hub."""
    sys.modules["gevent"].spawn(main)


def _current_hub() -> Any:
    return sys.modules["gevent"].get_hub()


def in_main_thread() -> bool:
    """Tell whether this is the main thread, or a greenlet in it."""
    if greened():  # to `threading`, a greenlet is not; on Linux the system tells
        return threading.get_native_id() == os.getpid()
    return threading.current_thread() is threading.main_thread()


def new_queue() -> SimpleQueue[bool]:
    """Return a real queue: a signal handler may put, and a real thread wait."""
    real: type[SimpleQueue[bool]] = _original("SimpleQueue", "_queue")
    return real()
