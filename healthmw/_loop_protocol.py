"""What the engine needs of an event loop, whichever it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextlib import AbstractContextManager
    from contextvars import Context


LATE = 0.1
"""A timer that is late by more seconds than this was held up by what blocked the loop."""


class LoopGoneError(RuntimeError):
    """The loop has ended, so nothing can be started on it any more."""


class Loop(Protocol):
    """What the engine needs of an event loop.

    Any thread may use it, except `is_cancelled` and all below it: those are for the loop's own.
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

    def spawn(
        self, main: Callable[[], Coroutine[Any, Any, None]], context: Context | None = None
    ) -> Callable[[], None]:
        """Run `main` as a task of the loop's own; return what cancels it.

        In `context`, or else in one that is nobody's: what many share belongs to none of them.
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

    def promise(self) -> Promise:
        """Return a value that is still to come."""

    def keep(self, promise: Any, value: object) -> None:
        """Let `promise`, one of this loop's, have its value; if nobody waits any more, do nothing.

        So it is where who waited was cancelled, or has ended with the loop.
        """

    async def wait(self, promise: Any, seconds: float) -> None:
        """Wait for `promise` and then a turn of the loop, but for so many seconds at most.

        In that turn all else that is ready goes first: with a run that has just come back are those
        served whose requests are just being read.
        """


class Promise(Protocol):
    """A value that one task of a loop waits for. To be used in the loop's thread alone."""

    def done(self) -> bool:
        """Tell whether it has its value or, on asyncio, who waited was cancelled."""

    def __await__(self) -> Generator[Any, Any, Any]: ...
