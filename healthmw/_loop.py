"""An event loop as seen from any thread: asyncio or trio.

anyio starts tasks only inside of a task group, which waits for them and so can't leave one behind.
A run of a probe has to outlive the request that began it, and a probe that ignores its cancellation
must not hold up anyone; both need a task that belongs to the loop itself. That, and waking a task
from another thread, is all that is done here with the two libraries directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from healthmw._native import get_ident

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager

    import trio

_LATE = 0.1
"""A timer that is late by more seconds than this was held up by what blocked the loop."""


_LAST_GRACE = 0.5
"""How long, in seconds, the end of a loop waits for tasks to give in to their cancellation."""


class LoopGoneError(RuntimeError):
    """The loop has ended, so nothing can be started on it any more."""


class Loop(Protocol):
    """What the engine needs of an event loop.

    Any thread may use it, but for the last two methods: they are for tasks of the loop.
    """

    thread: int
    """The identifier of the thread that the loop runs in."""

    @property
    def alive(self) -> bool:
        """Whether the loop runs."""

    @property
    def ended(self) -> bool:
        """Whether the loop will never run again."""

    @property
    def hears_ctrl_c(self) -> bool:
        """Whether a `KeyboardInterrupt` in a task of the loop's own may be the user's."""

    def call_soon(self, call: Callable[[], object]) -> None:
        """Have the loop's thread call `call`. Raises `LoopGoneError` when the loop has ended."""

    def spawn(self, main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        """Run `main` as a task of the loop's own; return what cancels it.

        Keep that: asyncio holds tasks by weak references only. Nobody waits for the task, so it
        should not raise; what it raises all the same goes to `sys.excepthook`. If it ignores its
        cancellation asyncio can end without it; a trio run can't.
        """

    def is_cancelled(self, error: BaseException) -> bool:
        """Tell whether `error` is this task's cancellation, and not the body's own invention."""

    def time_limit(
        self, seconds: float, expire: Callable[[], None], extend: Callable[[float], None]
    ) -> AbstractContextManager[None]:
        """Cancel the body once it has had `seconds`, and call `expire`.

        Time in which something else blocked the loop is given back, once; `extend` is told how
        much.
        """


def current_loop() -> Loop | None:
    """Return the loop that runs in this thread, if one does."""
    # Another thread may be importing trio at this moment, and have half of it.
    in_trio_run = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    if in_trio_run is not None and in_trio_run():
        return _TrioLoop()
    try:
        return AsyncioLoop(asyncio.get_running_loop())
    except RuntimeError:
        return None


class AsyncioLoop:
    """An asyncio event loop."""

    __slots__ = ("_loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.thread = get_ident()

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

    def spawn(self, main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        """Run `main` as a task of the loop's own; return what cancels it."""
        task: asyncio.Task[None]

        async def contained() -> None:
            try:
                await main()
            except Exception as exc:  # noqa: BLE001 - nobody waits for it to be told
                sys.excepthook(type(exc), exc, exc.__traceback__)

        def start() -> None:
            nonlocal task
            task = _task(self._loop, contained())
            _Company.of(self._loop).add(task)

        def stop() -> None:
            # Not yet: a task that is cancelled before its first step never makes it, so that nobody
            # would hear of its end.
            self._loop.call_soon(task.cancel)

        if get_ident() == self.thread:
            start()
        else:
            self.call_soon(start)
        return lambda: self.call_soon(stop)

    def is_cancelled(self, error: BaseException) -> bool:
        """Tell whether `error` is this task's cancellation, and not the body's own invention."""
        task = asyncio.current_task()
        # By its type: what it says of its class is the probe's, and may be anything.
        cancelled = issubclass(type(error), asyncio.CancelledError)
        return cancelled and task is not None and task.cancelling() > 0

    @contextmanager
    def time_limit(
        self, seconds: float, expire: Callable[[], None], extend: Callable[[float], None]
    ) -> Iterator[None]:
        """Cancel the body once it has had `seconds`, and call `expire`.

        The task is cancelled a single time and then left to itself. anyio's scopes cancel again
        on every turn of the loop until the task gives in, which cuts short an honest clean-up and
        spins for ever on a task that never does.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: a loop runs us inside of a task
        extended = False

        def ring() -> None:
            nonlocal extended
            late = self._loop.time() - timers[-1].when()
            if late > _LATE and not extended:
                extended = True
                extra = min(late, seconds)
                extend(extra)
                timers.append(self._loop.call_later(extra, ring))
                return
            task.cancel()
            expire()

        timers = [self._loop.call_later(seconds, ring)]
        try:
            yield
        finally:
            timers[-1].cancel()


def _task(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    # Not by `create_task`: an eager task would begin here and now, under its maker's locks. In an
    # empty context: a run that many requests share belongs to none of them.
    task = asyncio.Task(main, loop=loop, name="healthmw", context=contextvars.Context())
    # Where a loop ends with tasks in the middle of something, those are no news.
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - as gather does
    return task


class _Company:
    """The tasks of ours on one asyncio loop, and the one that stands in for them.

    `asyncio.run` cancels all tasks it knows of and waits for each. A probe that does not give in to
    its cancellation would keep the process from exiting, so asyncio is told of the stand-in alone:
    it hands the cancellation on, and does not wait for long.
    """

    _by_loop: ClassVar[dict[asyncio.AbstractEventLoop, _Company]] = {}

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispersed = loop.create_future()
        self._stand_in = _task(loop, self._stand())

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Company:
        """Return the one of `loop`, in whose thread this is called."""
        for other in list(cls._by_loop):
            if other.is_closed():  # it ended without a word to its tasks
                cls._by_loop.pop(other, None)
        found = cls._by_loop.get(loop)
        if found is None:
            found = cls._by_loop[loop] = cls(loop)
        return found

    def add(self, task: asyncio.Task[None]) -> None:
        """Take `task` in."""
        asyncio._unregister_task(task)  # noqa: SLF001 - documented, in asyncio's "Extending"
        self._tasks.add(task)
        task.add_done_callback(self._leaves)

    def _leaves(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks and not self._dispersed.done():
            self._by_loop.pop(self._loop, None)
            self._dispersed.set_result(None)

    async def _stand(self) -> None:
        try:
            await self._dispersed
        except asyncio.CancelledError:
            self._by_loop.pop(self._loop, None)
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_LAST_GRACE)
            raise


class _TrioLoop:
    """A trio run. Made inside of it."""

    __slots__ = ("_token", "thread")

    def __init__(self) -> None:
        import trio

        self._token: trio.lowlevel.TrioToken = trio.lowlevel.current_trio_token()
        self.thread = get_ident()

    @property
    def alive(self) -> bool:
        """Whether the loop runs."""
        try:
            self.call_soon(int)
        except LoopGoneError:
            return False
        return True

    @property
    def ended(self) -> bool:
        """Whether the loop will never run again."""
        return not self.alive

    @property
    def hears_ctrl_c(self) -> bool:
        """Whether a `KeyboardInterrupt` in a task of the loop's own may be the user's."""
        return False  # trio raises it in the main task

    def call_soon(self, call: Callable[[], object]) -> None:
        """Have the loop's thread call `call`. Raises `LoopGoneError` when the loop has ended."""
        import trio

        try:
            self._token.run_sync_soon(call)
        except trio.RunFinishedError as exc:
            raise LoopGoneError(str(exc)) from exc

    def spawn(self, main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        """Run `main` as a task of the loop's own; return what cancels it."""
        import trio

        scope = trio.CancelScope()

        async def scoped() -> None:
            with scope:
                try:
                    await main()
                except trio.Cancelled:
                    raise
                except BaseException as exc:  # noqa: BLE001 - the whole trio run would end over it
                    sys.excepthook(type(exc), exc, exc.__traceback__)

        def start() -> None:
            trio.lowlevel.spawn_system_task(scoped, name="healthmw")

        def start_from_elsewhere() -> None:
            # A run that is about to end takes no more tasks, and breaks down over what is raised
            # here; who waits for the task gives up in time.
            with contextlib.suppress(RuntimeError):
                start()

        if get_ident() == self.thread:
            start()
            return scope.cancel
        self.call_soon(start_from_elsewhere)
        return lambda: self.call_soon(scope.cancel)

    def is_cancelled(self, error: BaseException) -> bool:
        """Tell whether `error` is this task's cancellation, and not the body's own invention."""
        import trio

        return issubclass(type(error), trio.Cancelled)

    @contextmanager
    def time_limit(
        self,
        seconds: float,
        expire: Callable[[], None],
        extend: Callable[[float], None],  # noqa: ARG002 - trio's deadlines can't tell a late timer
    ) -> Iterator[None]:
        """Cancel the body once it has had `seconds`, and call `expire`."""
        import trio

        with trio.move_on_after(seconds) as scope:
            try:
                yield
            finally:  # whatever the body made of its cancellation
                if scope.cancel_called:
                    expire()
