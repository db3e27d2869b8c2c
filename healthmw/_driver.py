"""What probes share around their drivers: bounds in time, what is shown, and what is refused."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import threading
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from healthmw._options import seconds
from healthmw._probe import Degraded
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from healthmw._probe import Outcome

T = TypeVar("T")


@contextmanager
def time_limit(seconds: float, abort: Callable[[], object]) -> Iterator[None]:
    """Bound a block that blocks: unless it is over in `seconds`, another thread calls `abort`.

    `abort` must make the block end, as shutting a socket down does. What the block raises after
    that becomes a `TimeoutError`.
    """
    fired = threading.Event()

    def fire() -> None:
        fired.set()
        abort()

    timer = threading.Timer(seconds, fire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as exc:
        if fired.is_set():
            raise TimeoutError from exc
        raise
    finally:
        timer.cancel()
        timer.join()


@contextmanager
def shut_down_after(seconds: float) -> Iterator[Callable[[int], None]]:
    """Bound a block that waits at sockets: unless it is over in `seconds`, they are shut down.

    Yields what the block calls with the file number of each socket that it is going to wait at.
    What the block raises after its time becomes a `TimeoutError`.
    """
    fired = threading.Event()
    lock = threading.Lock()  # between this thread and the timer's
    watched: list[socket.socket] = []

    def watch(descriptor: int) -> None:
        # A handle of our own: what the driver does with its own meanwhile can't confuse the two.
        sock = socket.socket(fileno=os.dup(descriptor))
        with lock:
            watched.append(sock)
            if fired.is_set():
                shut_down()

    def shut_down() -> None:
        for sock in watched:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def fire() -> None:
        with lock:
            fired.set()
            shut_down()

    try:
        with time_limit(seconds, fire):
            yield watch
    finally:
        for sock in watched:
            sock.close()


def watch_connection(watch: Callable[[int], None], connection: Any) -> None:
    """Give `watch` the socket of a driver's connection, where that can be found."""
    # PyMySQL's and pg8000's, which have no public name for it, come after the public ones.
    for find in (attrgetter(name) for name in ("fileno", "_sock.fileno", "_usock.fileno")):
        with suppress(Exception):  # whatever else a driver may call by these names
            descriptor = find(connection)()
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                watch(descriptor)
                return


def let_go_when_cancelled(connection: Any) -> None:
    """Have psycopg say nothing to the server when a query on its async `connection` is cancelled.

    By itself it asks the server to cancel the query, by a second connection, and waits for both to
    end. One that hangs does not answer there either; and before libpq 17 the wait for it may hold
    Python's lock, so that the whole process hangs with the server. The connection is not usable
    afterwards, and is to be closed.
    """
    connection.cancel_safe = _let_go


async def _let_go(**_options: object) -> None:
    raise sys.exception() or asyncio.CancelledError  # psycopg calls this as it handles the former


def with_latency(outcome: Outcome, seconds: float) -> Outcome:
    """Return what a probe found with `latency_seconds` among its measurements."""
    latency = {"latency_seconds": seconds}
    if isinstance(outcome, Degraded):
        return Degraded(outcome.detail, {**latency, **outcome.measurements})
    return {**latency, **(outcome or {})}


def why(exc: BaseException) -> str:
    """Return the text of the first cause of `exc`: clients may say only that they failed."""
    seen: set[int] = set()  # causes may go round: a retry may raise the first error from the last
    while True:
        seen.add(id(exc))
        if isinstance(exc, BaseExceptionGroup):
            inner = [exc.exceptions[0]]
        else:  # httpcore hides causes by `from None`
            inner = [one for one in (exc.__cause__, exc.__context__) if one is not None]
        earlier = [one for one in inner if id(one) not in seen]
        if not earlier:
            return str(exc) or type(exc).__name__
        exc = earlier[0]


def check_timeout(timeout: float) -> float:
    """Return `timeout`, a probe's own bound in seconds, or raise `ValueError`."""
    return seconds("timeout", timeout)


def names(option: str, given: str | Iterable[str]) -> tuple[str, ...]:
    """Return one name or several as a tuple, or raise `ValueError` where there is none."""
    found = (given,) if isinstance(given, str) else tuple(given)
    if not found or not all(found):
        raise ValueError(f"{option} must be one or more names")
    return found


def require_asyncio(what: str, *, instead: str) -> None:
    """Raise `ProbeFailedError` where the running loop is not asyncio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ProbeFailedError(f"{what} works on asyncio only; {instead}") from None


class Undisturbed(Generic[T]):
    """Runs work on asyncio to its end even where the waiter is cancelled, one at a time.

    For drivers that can't be cancelled. Who comes next waits for what was left alone before.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[T] | None = None

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `work` returns."""
        await self.ended()
        self._task = task = asyncio.ensure_future(work())
        # Seen by then, though nobody may wait for it any more: else asyncio logs what it raised.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({task})
        return task.result()

    async def ended(self) -> None:
        """Wait until nothing runs any more."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})


def call_soon_threadsafe() -> Callable[..., object]:
    """Return the running loop's way in for other threads."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
