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
import functools
import math
import sys
import threading
import time
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
    def identity(self) -> object:
        """What all views of the same loop have in common."""

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

    def spawn(self, main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        """Run `main` as a task of the loop's own; return what cancels it."""
        if get_ident() == self.thread:
            return functools.partial(self._cancel, self._start(main))
        started: list[asyncio.Task[None]] = []
        self.call_soon(lambda: started.append(self._start(main)))
        return lambda: self.call_soon(lambda: self._cancel(started[0]))

    def _start(self, main: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        task = _task(self._loop, main())
        _Company.of(self._loop).add(task)
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
        return _TimeLimit(_Company.of(self._loop).alarm, seconds, expire, extend)


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
        self.alarm = _Alarm(loop)
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispersed = loop.create_future()
        self._stand_in = _task(loop, self._stand())

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Company:
        """Return the one of `loop`, in whose thread this is called."""
        found = cls._by_loop.get(loop)
        if found is None:
            found = cls._by_loop[loop] = cls(loop)
        if len(cls._by_loop) > 1:
            for other in list(cls._by_loop):
                if other.is_closed():  # it ended without a word to its tasks
                    cls._by_loop.pop(other, None)
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
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):  # nobody waits for it to be told
            sys.excepthook(type(error), error, error.__traceback__)

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


class _Alarm:
    """One timer for all time limits on an asyncio loop: nearly all bodies end before theirs.

    It is set at the end of a turn of the loop, for those that have not ended by then.
    """

    __slots__ = ("_limits", "_loop", "_rings", "_timer", "_to_be_set")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._limits: set[_TimeLimit] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings = math.inf
        self._to_be_set = False

    def __contains__(self, limit: _TimeLimit) -> bool:
        return limit in self._limits

    def add(self, limit: _TimeLimit) -> None:
        """Ring for `limit` when it is due."""
        self._limits.add(limit)
        if limit.due < self._rings and not self._to_be_set:
            self._to_be_set = True
            self._loop.call_soon(self._set)

    def remove(self, limit: _TimeLimit) -> None:
        """Ring for it no more."""
        self._limits.discard(limit)
        if not self._limits and self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings = None, math.inf

    def _set(self) -> None:
        self._to_be_set = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rings = min((limit.due for limit in self._limits), default=math.inf)
        if self._limits:
            seconds = max(self._rings - time.monotonic(), 0.0)
            self._timer = self._loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        now = time.monotonic()
        for limit in self._limits:
            if limit.due <= now:
                self._loop.call_soon(limit.ring)  # what one may raise is no affair of the others
        self._loop.call_soon(self._set)


class _TimeLimit:
    """A time limit on the body of a `with` block, in a task of an asyncio loop."""

    __slots__ = ("_alarm", "_expire", "_extend", "_extended", "_seconds", "_task", "due")

    def __init__(
        self,
        alarm: _Alarm,
        seconds: float,
        expire: Callable[[], None],
        extend: Callable[[float], None],
    ) -> None:
        self._alarm = alarm
        self._seconds = seconds
        self._expire = expire
        self._extend = extend
        self._extended = False
        self.due = time.monotonic() + seconds
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: a loop runs us inside of a task
        self._task = task

    def __enter__(self) -> None:
        self._alarm.add(self)

    def __exit__(self, *_: object) -> None:
        self._alarm.remove(self)

    def ring(self) -> None:
        """End the body, unless this comes too late for reasons that are not its own."""
        late = time.monotonic() - self.due
        if late < 0 or self not in self._alarm:
            return  # it was put off, or has ended by itself, since the alarm rang
        if late > _LATE and not self._extended:
            self._extended = True
            extra = min(late, self._seconds)
            self._extend(extra)
            self.due += late + extra
            self._alarm.add(self)
            return
        self._alarm.remove(self)
        self._task.cancel()
        self._expire()


class _TrioLoop:
    """A trio run. Made inside of it."""

    __slots__ = ("_token", "thread")

    def __init__(self) -> None:
        import trio

        self._token: trio.lowlevel.TrioToken = trio.lowlevel.current_trio_token()
        self.thread = get_ident()

    @property
    def identity(self) -> object:
        """What all views of the same loop have in common."""
        return self._token

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
