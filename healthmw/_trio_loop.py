"""A trio run as seen from any thread. Loaded where there is one."""

from __future__ import annotations

import contextlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import trio

from healthmw._loop_protocol import LATE, LoopGoneError
from healthmw._native import get_ident
from healthmw._scrub import tell_uncaught

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator
    from contextvars import Context


class TrioLoop:
    """A trio run. Made inside of it."""

    __slots__ = ("_token", "thread")

    def __init__(self) -> None:
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
            self._token.run_sync_soon(int, idempotent=True)  # however often it is asked
        except trio.RunFinishedError:
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
        try:
            self._token.run_sync_soon(call)
        except trio.RunFinishedError as exc:
            raise LoopGoneError(str(exc)) from exc

    def spawn(
        self, main: Callable[[], Coroutine[Any, Any, None]], context: Context | None = None
    ) -> Callable[[], None]:
        """Run `main` as a task of the loop's own; return what cancels it."""
        scope = trio.CancelScope()

        async def scoped() -> None:
            with scope:
                try:
                    await main()
                except BaseException as exc:
                    if self.is_cancelled(exc):
                        raise
                    tell_uncaught(exc)  # the whole trio run would end over it

        def start() -> None:
            trio.lowlevel.spawn_system_task(scoped, name="healthmw", context=context)

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
        # By its type: what it says of its class is the probe's, and may be anything.
        if issubclass(type(error), trio.Cancelled):
            return True
        if not issubclass(type(error), BaseExceptionGroup):
            return False
        group = cast("BaseExceptionGroup[BaseException]", error)  # of a nursery in the body
        return BaseExceptionGroup.split(group, trio.Cancelled)[1] is None

    @contextmanager
    def time_limit(
        self, seconds: float, expire: Callable[[], None], extend: Callable[[float], None]
    ) -> Iterator[None]:
        """Cancel the body once it has had `seconds`, and call `expire`."""
        over = trio.CancelScope()

        # A deadline of the body's own scope could not tell whether it is late.
        async def watch() -> None:
            with over:
                due = trio.current_time() + seconds
                await trio.sleep_until(due)
                late = trio.current_time() - due
                if late > LATE:
                    extra = min(late, seconds)
                    extend(extra)
                    await trio.sleep(extra)
                scope.cancel()

        with trio.CancelScope() as scope:
            with contextlib.suppress(RuntimeError):  # the run is about to end, and the body with it
                trio.lowlevel.spawn_system_task(watch, name="healthmw")
            try:
                yield
            finally:  # whatever the body made of its cancellation
                over.cancel()
                if scope.cancel_called:
                    expire()

    def promise(self) -> TrioPromise:
        """Return a value that is still to come."""
        return TrioPromise()

    def keep(self, promise: TrioPromise, value: object) -> None:
        """Let `promise` have its value; if nobody waits any more, do nothing."""
        if not promise.done():
            promise.keep(value)

    async def wait(self, promise: TrioPromise, seconds: float) -> None:
        """Wait for `promise` and then a turn of the loop, but for so many seconds at most."""
        with trio.move_on_after(seconds):
            await promise
        await trio.lowlevel.cancel_shielded_checkpoint()


class TrioPromise:
    """A value that one task waits for."""

    __slots__ = ("_event", "_value")

    def __init__(self) -> None:
        self._event = trio.Event()
        self._value: object = None

    def done(self) -> bool:
        """Tell whether it has its value."""
        return self._event.is_set()

    def keep(self, value: object) -> None:
        """Have the value, and wake who waits."""
        self._value = value
        self._event.set()

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from self._event.wait().__await__()
        return self._value
