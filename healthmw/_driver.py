"""What probes share around their drivers: resources per process and loop, bounds in time, names."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import stat
import sys
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakSet

import anyio
from anyio.abc import SocketAttribute
from anyio.lowlevel import current_token

from healthmw._options import seconds
from healthmw._probe import Degraded
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Coroutine,
        Iterable,
        Iterator,
        Sequence,
    )

    from anyio.abc import SocketStream

    from healthmw._probe import Outcome

T = TypeVar("T")


# What holds resources; and, in a child, what its parents held at the fork. That is kept to the end:
# what is collected says goodbye on a connection that is the parent's.
_holders: WeakSet[PerProcess[Any] | PerLoop[Any]] = WeakSet()
_inherited: list[object] = []


def _keep_inherited() -> None:
    _inherited.extend(holder.held() for holder in [*_holders])


os.register_at_fork(after_in_child=_keep_inherited)


class PerProcess(Generic[T]):
    """One resource for each process, made on first use, for what may be used from any thread.

    What was made before a fork stays with the parent: the child makes its own, and passes the
    inherited one to `leave`. That must not close it, which would say goodbye on the parent's
    connection, and may see to it that nothing else does.
    """

    def __init__(
        self, make: Callable[[], T], leave: Callable[[T], object] = lambda _: None
    ) -> None:
        self._make = make
        self._leave = leave
        # No lock: one that a thread of the parent held at the fork would stay locked in the child.
        self._held: dict[int, T] = {}
        _holders.add(self)

    def held(self) -> list[object]:
        """Return all that is held, by this process and those that it was forked from."""
        return [*self._held.values()]

    def get(self) -> T:
        """Return this process's resource. `make` opens nothing: of two made at once, one goes."""
        pid = os.getpid()
        try:
            return self._held[pid]
        except KeyError:
            for inherited in [*self._held.values()]:
                self._leave(inherited)
            return self._held.setdefault(pid, self._make())

    def pop(self) -> T | None:
        """Forget this process's resource and return it, to be closed by the caller."""
        return self._held.pop(os.getpid(), None)


class PerLoop(Generic[T]):
    """One resource for each event loop of each process, made on first use, for async clients.

    It is closed by `aclose` on its own loop, or else by that loop when it ends. As with
    `PerProcess`, a child leaves alone what it inherited by a fork.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[object]]) -> None:
        self._make = make
        self._close = close
        self._held: dict[tuple[int, object], tuple[T, AsyncGenerator[T]]] = {}
        _holders.add(self)

    def held(self) -> list[object]:
        """Return all that is held, by this process and those that it was forked from."""
        return [*self._held.values()]

    async def get(self) -> T:
        """Return this loop's resource. `make` runs on the loop, without a pause in between."""
        key = os.getpid(), current_token()
        held = self._held.get(key)
        if held is None:
            self._forget_the_closed()
            keeper = self._keep(key)
            held = self._held[key] = await anext(keeper), keeper
        return held[0]

    async def aclose(self) -> None:
        """Close this loop's resource, if there is one; the next `get` makes another."""
        held = self._held.pop((os.getpid(), current_token()), None)
        if held is not None:
            await held[1].aclose()

    def _forget_the_closed(self) -> None:
        # asyncio's loops may be closed without a word to their generators. Nothing can be closed on
        # such a loop any more: its sockets close when they are collected.
        for key in [*self._held]:
            if key[0] == os.getpid() and _is_closed(key[1]):
                self._held.pop(key, None)

    async def _keep(self, key: tuple[int, object]) -> AsyncGenerator[T]:
        # A generator, because every loop closes those that are still open when it ends (asyncio by
        # shutdown_asyncgens). So one `asyncio.run` after another leaks no connection.
        resource = self._make()
        try:
            yield resource
        finally:
            self._held.pop(key, None)
            if key[0] == os.getpid():  # not in a child, which has inherited the generator as well
                await self._close(resource)


def _is_closed(token: object) -> bool:
    loop = getattr(token, "native_token", token)  # before anyio 4.11 the token was the loop itself
    return isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()


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


_HEAD_START = 0.25
"""How long, in seconds, an address is tried before the next one of the same host is tried too."""

_lookups: dict[tuple[int, str], Future[Any]] = {}


async def look_up(host: str | None) -> None:
    """See that the name `host` resolves, in a daemon thread, before an async client resolves it.

    asyncio resolves names in the app's default executor. A resolver that hangs would fill that with
    threads that no cancellation ends, one a run. Here it holds one thread for a name, and the
    client does not get to run. Raises `ProbeFailedError` for a name that does not resolve.
    """
    if host and not _is_address(host):
        await _resolved(host)


async def resolve(host: str) -> list[str]:
    """Return the addresses of `host`, as `look_up` finds them."""
    return [*dict.fromkeys(str(found[4][0]) for found in await _resolved(host))]


async def connect(host: str, port: int) -> SocketStream:
    """Connect by TCP to a host whose name is resolved as by `look_up`, and never by the loop.

    Its addresses are tried as anyio tries them: the next one when the one before it has failed, or
    after a moment. Raises `ProbeFailedError` for a name that does not resolve, and `OSError`.
    """
    addresses = [host] if _is_address(host) else await resolve(host)
    if len(addresses) == 1:
        return await _connect_tcp(addresses[0], port)
    streams: list[SocketStream] = []
    errors: list[OSError] = []

    async def attempt(address: str, over: anyio.Event) -> None:
        try:
            stream = await _connect_tcp(address, port)
        except OSError as exc:
            errors.append(exc)
        else:
            streams.append(stream)
            tasks.cancel_scope.cancel()
        finally:
            over.set()

    try:
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                over = anyio.Event()
                tasks.start_soon(attempt, address, over)
                with anyio.move_on_after(_HEAD_START):
                    await over.wait()
        if not streams:
            raise OSError("no address could be connected to") from errors[0]
        return streams.pop()
    finally:  # those that came too late, and all of them where nobody waits any more
        for stream in streams:
            await anyio.aclose_forcefully(stream)


async def _connect_tcp(address: str, port: int) -> SocketStream:
    stream = await anyio.connect_tcp(address, port)
    # Where nobody listens, the system may have given it the very port that it is to connect to.
    ours, theirs = (
        stream.extra(attribute, None)  # noqa: S610 - not Django's `extra`
        for attribute in (SocketAttribute.local_address, SocketAttribute.remote_address)
    )
    if ours == theirs:
        await anyio.aclose_forcefully(stream)
        raise ConnectionRefusedError("nobody listens there: it was connected to itself")
    return stream


async def _resolved(host: str) -> Any:
    key = os.getpid(), host
    ours: Future[Any] = Future()
    future = _lookups.setdefault(key, ours)  # in one step: another thread's loop may ask as well
    if future is ours:
        try:
            threading.Thread(target=_resolve, args=(key, future), daemon=True).start()
        except Exception as exc:  # noqa: BLE001 - raised by the look-up, to all who wait for it
            _lookups.pop(key, None)
            future.set_exception(exc)
    answered = anyio.Event()
    call_soon = call_soon_threadsafe()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            call_soon(answered.set)

    future.add_done_callback(tell)
    await answered.wait()
    try:
        return future.result()
    except (OSError, ValueError) as exc:
        raise ProbeFailedError(f"can't resolve {host}: {exc}") from exc


async def look_up_any(hosts: Sequence[str | None]) -> None:
    """See that one of these names resolves, for a client that tries them one after another."""
    for number, host in enumerate(hosts, 1):
        try:
            await look_up(host)
        except ProbeFailedError:
            if number == len(hosts):
                raise
        else:
            return


def _resolve(key: tuple[int, str], future: Future[Any]) -> None:
    try:
        found = socket.getaddrinfo(key[1], None)
    except BaseException as exc:  # noqa: BLE001 - raised by the look-up, to all who wait for it
        _lookups.pop(key, None)
        future.set_exception(exc)
    else:
        _lookups.pop(key, None)
        future.set_result(found)


def _is_address(host: str) -> bool:
    """Tell whether there is nothing to resolve: an IP address, or a Unix socket's path."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.startswith("/")
    return True


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


def show_address(host: str, port: int) -> str:
    """Return `host:port` as a URL has it, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def call_soon_threadsafe() -> Callable[..., object]:
    """Return the running loop's way in for other threads."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
