"""Tasks of our own on an asyncio loop: what ends them in time, and with the loop."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from typing import TYPE_CHECKING, Any, ClassVar

from healthmw._loop_protocol import LATE
from healthmw._scrub import tell_uncaught

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_LAST_GRACE = 0.5
"""How long, in seconds, the end of a loop waits for tasks to give in to their cancellation."""


def new_task(
    loop: asyncio.AbstractEventLoop,
    main: Coroutine[Any, Any, None],
    context: contextvars.Context | None = None,
) -> asyncio.Task[None]:
    """Return `main` as a task of our own. It begins in the next turn of the loop."""
    if context is None:  # an empty one: a run that many requests share belongs to none of them
        context = contextvars.Context()
    # Not by `create_task`: an eager task would begin here and now, under its maker's locks.
    task = asyncio.Task(main, loop=loop, name="healthmw", context=context)
    # Where a loop ends with tasks in the middle of something, those are no news.
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - as gather does
    return task


class Company:
    """The tasks of ours on one asyncio loop, and the one that stands in for them.

    `asyncio.run` cancels all tasks it knows of and waits for each. A probe that does not give in to
    its cancellation would keep the process from exiting, so asyncio is told of the stand-in alone:
    it hands the cancellation on, and does not wait for long.
    """

    _by_loop: ClassVar[dict[asyncio.AbstractEventLoop, Company]] = {}

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.alarm = Alarm(loop)
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispersed = loop.create_future()
        self._stand_in = new_task(loop, self._stand())

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Company:
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
            self._give_way()
            self._dispersed.set_result(None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):  # nobody waits for it to be told
            tell_uncaught(error)

    def _give_way(self) -> None:
        """Let the next task have a company of its own, unless it has one already."""
        if self._by_loop.get(self._loop) is self:
            del self._by_loop[self._loop]

    async def _stand(self) -> None:
        try:
            await self._dispersed
        except asyncio.CancelledError:
            self._give_way()
            for task in self._tasks:
                # Not at once: one that never made its first step would tell nobody of its end.
                self._loop.call_soon(task.cancel)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_LAST_GRACE)
            raise


class Alarm:
    """One timer for all time limits on an asyncio loop: nearly all bodies end before theirs.

    It is set at the end of a turn of the loop, for those that have not ended by then.
    """

    __slots__ = ("_limits", "_loop", "_rings", "_timer", "_to_be_set")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._limits: set[TimeLimit] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings = math.inf
        self._to_be_set = False

    def __contains__(self, limit: TimeLimit) -> bool:
        return limit in self._limits

    def add(self, limit: TimeLimit) -> None:
        """Ring for `limit` when it is due."""
        self._limits.add(limit)
        if limit.due < self._rings and not self._to_be_set:
            self._to_be_set = True
            self._loop.call_soon(self._set)

    def remove(self, limit: TimeLimit) -> None:
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


class TimeLimit:
    """A time limit on the body of a `with` block, in a task of an asyncio loop."""

    __slots__ = ("_alarm", "_expire", "_extend", "_extended", "_seconds", "_task", "due")

    def __init__(
        self,
        alarm: Alarm,
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
        if late > LATE and not self._extended:
            self._extended = True
            extra = min(late, self._seconds)
            self._extend(extra)
            self.due += late + extra
            self._alarm.add(self)
            return
        self._alarm.remove(self)
        self._task.cancel()
        self._expire()
