"""Which event loop runs here, and asyncio's as seen from any thread.

anyio starts tasks only inside of a task group, which waits for them and so can't leave one behind.
A run of a probe has to outlive the request that began it, and a probe that ignores its cancellation
must not hold up anyone; both need a task that belongs to the loop itself. That, waking a task from
another thread, and what hundreds of readers of one run do hundreds of times is all that this
module, `_company` and `_trio_loop` do with the two libraries directly.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any

from healthmw._company import Company, TimeLimit, new_task
from healthmw._loop_protocol import LoopGoneError
from healthmw._native import get_ident

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager
    from contextvars import Context

    from healthmw._loop_protocol import Loop


def running() -> object | None:
    """Return the identity of the loop that runs in this thread, if one does."""
    return _trio_token() or _asyncio_loop()


def current_loop() -> Loop | None:
    """Return the loop that runs in this thread, if one does."""
    if _trio_token() is not None:
        from healthmw._trio_loop import TrioLoop

        return TrioLoop()
    loop = _asyncio_loop()
    return None if loop is None else AsyncioLoop(loop)


def current_task() -> object | None:
    """Return the task that runs in this thread, if one does."""
    trio: Any = sys.modules.get("trio.lowlevel")
    if trio is not None and getattr(trio, "in_trio_task", bool)():  # there may be half of it
        task: object = trio.current_task()
        return task
    # Where no loop runs, to be told so by an exception would cost twenty times as much.
    loop = asyncio._get_running_loop()  # noqa: SLF001 - asyncio exports it
    return None if loop is None else asyncio.current_task(loop)


def is_over(task: Any) -> bool:
    """Tell whether a task, as `current_task` gave it, has ended."""
    if isinstance(task, asyncio.Future):
        return task.done()
    return task.coro.cr_frame is None


def _trio_token() -> object | None:
    # Another thread may be importing trio at this moment, and have half of it.
    trio: Any = sys.modules.get("trio.lowlevel")
    in_trio_run = getattr(trio, "in_trio_run", None)
    if in_trio_run is None or not in_trio_run():
        return None
    if not trio.in_trio_task() and _asyncio_loop() is not None:
        return None  # a task of asyncio's, where trio is its guest
    token: object = trio.current_trio_token()
    return token


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class AsyncioLoop:
    """An asyncio event loop."""

    __slots__ = ("_loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.thread = get_ident()

    @property
    def identity(self) -> object:
        """What all views of the same loop have in common."""
        return self._loop

    @property
    def alive(self) -> bool:
        """Whether the loop runs."""
        return self._loop.is_running() and not self._loop.is_closed()

    @property
    def ended(self) -> bool:
        """Whether the loop will never run again."""
        return self._loop.is_closed()

    @property
    def hears_ctrl_c(self) -> bool:
        """Whether a `KeyboardInterrupt` in a task of the loop's own may be the user's."""
        return self.thread == threading.main_thread().ident

    def call_soon(self, call: Callable[[], object]) -> None:
        """Have the loop's thread call `call`. Raises `LoopGoneError` when the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError as exc:
            raise LoopGoneError(str(exc)) from exc

    def spawn(
        self, main: Callable[[], Coroutine[Any, Any, None]], context: Context | None = None
    ) -> Callable[[], None]:
        """Run `main` as a task of the loop's own; return what cancels it."""
        if get_ident() == self.thread:
            return functools.partial(self._cancel, self._start(main, context))
        started: list[asyncio.Task[None]] = []
        self.call_soon(lambda: started.append(self._start(main, context)))
        return lambda: self.call_soon(lambda: self._cancel(started[0]))

    def _start(
        self, main: Callable[[], Coroutine[Any, Any, None]], context: Context | None
    ) -> asyncio.Task[None]:
        task = new_task(self._loop, main(), context)
        Company.of(self._loop).add(task)
        return task

    def _cancel(self, task: asyncio.Task[None]) -> None:
        # Not at once: a task that is cancelled before its first step never makes it, so that nobody
        # would hear of its end.
        self.call_soon(functools.partial(self._loop.call_soon, task.cancel))

    def is_cancelled(self, error: BaseException) -> bool:
        """Tell whether `error` is this task's cancellation, and not the body's own invention."""
        task = asyncio.current_task()
        # By its type: what it says of its class is the probe's, and may be anything.
        cancelled = issubclass(type(error), asyncio.CancelledError)
        return cancelled and task is not None and task.cancelling() > 0

    def time_limit(
        self, seconds: float, expire: Callable[[], None], extend: Callable[[float], None]
    ) -> AbstractContextManager[None]:
        """Cancel the body once it has had `seconds`, and call `expire`.

        The task is cancelled a single time and then left to itself. anyio's scopes cancel again
        on every turn of the loop until the task gives in, which cuts short an honest clean-up and
        spins for ever on a task that never does.
        """
        return TimeLimit(Company.of(self._loop).alarm, seconds, expire, extend)

    def promise(self) -> asyncio.Future[Any]:
        """Return a value that is still to come."""
        return self._loop.create_future()

    def keep(self, promise: asyncio.Future[Any], value: object) -> None:
        """Let `promise` have its value; if nobody waits any more, do nothing."""
        if not promise.done() and not self._loop.is_closed():
            promise.set_result(value)

    async def wait(self, promise: asyncio.Future[Any], seconds: float) -> None:
        """Wait for `promise` and then a turn of the loop, but for so many seconds at most."""
        await asyncio.wait((promise,), timeout=seconds)  # which goes by way of a future of its own
