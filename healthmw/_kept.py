"""A probe's own connection: opened on first use, kept between runs, replaced where it died."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from healthmw._held import PerLoop, PerProcess
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

C = TypeVar("C")
T = TypeVar("T")

_CLOSE_LIMIT = 1.0  # seconds to say goodbye to the server

FOR_EACH_USE = 60.0
"""For how long, in seconds, to keep a connection where the app opens one for each use.

The app notices at once what only a new connection tells: a password that changed, a host that
moved, a database that was made read-only.
"""


class KeptConnection(Generic[C]):
    """One connection for each process, for a driver that blocks; its users take turns.

    `connect` and what `run` is given are told the seconds left, and must end by then. `close` must
    not wait. After a failure the connection is not kept, not even where the server has answered: a
    new one may find the server that has taken over. Nor is one that is older than `max_age`
    seconds. A child leaves a connection alone that a fork has brought to it.
    """

    def __init__(
        self,
        *,
        connect: Callable[[float], C],
        close: Callable[[C], object],
        timeout: float,
        max_age: float = math.inf,
    ) -> None:
        self._connect = connect
        self._close = close
        self._timeout = timeout
        self._max_age = max_age
        self._slots: PerProcess[_Slot[C, threading.Lock]]
        self._slots = PerProcess(lambda: _Slot(threading.Lock()))

    def run(self, work: Callable[[C, float], T]) -> T:
        """Return what `work` makes of the connection, or raise what it raised.

        Work that fails on a connection which may have died since the last run is done once more, on
        a new one. Raises `ProbeTimeoutError` when it isn't done in time.
        """
        until = time.monotonic() + self._timeout
        slot = self._slots.get()
        if not slot.lock.acquire(timeout=self._timeout):
            raise _late(self._timeout)
        try:
            return self._run(slot, work, until)
        except ProbeFailedError:
            raise
        except Exception as exc:
            # Each driver has its own error for a time that is up.
            if isinstance(exc, TimeoutError) or time.monotonic() >= until:
                raise _late(self._timeout) from exc
            raise
        finally:
            slot.lock.release()
            if slot.retired:
                self._drop_unless_used(slot)

    def close(self) -> None:
        """Close the connection now, or else when the run that uses it ends."""
        slot = self._slots.pop()
        if slot is not None:
            slot.retired = True
            self._drop_unless_used(slot)

    def _run(
        self, slot: _Slot[C, threading.Lock], work: Callable[[C, float], T], until: float
    ) -> T:
        if slot.age() > self._max_age:
            self._drop(slot)
        kept = slot.connection is not None
        try:
            return self._once(slot, work, until)
        except (ProbeFailedError, TimeoutError):
            raise
        except Exception:
            if not kept or time.monotonic() >= until:
                raise
        return self._once(slot, work, until)

    def _once(
        self, slot: _Slot[C, threading.Lock], work: Callable[[C, float], T], until: float
    ) -> T:
        connection = slot.connection
        if connection is None:
            connection = slot.put(self._connect(_left(until)))
        try:
            return work(connection, _left(until))
        except BaseException:
            self._drop(slot)
            raise

    def _drop_unless_used(self, slot: _Slot[C, threading.Lock]) -> None:
        if slot.lock.acquire(blocking=False):
            try:
                self._drop(slot)
            finally:
                slot.lock.release()

    def _drop(self, slot: _Slot[C, threading.Lock]) -> None:
        connection = slot.take()
        if connection is not None:
            with suppress(Exception):  # it may be in any state
                self._close(connection)


class AsyncKeptConnection(Generic[C]):
    """One connection for each event loop, for an async driver; its users take turns.

    `close` says goodbye, and may be cancelled; `drop` closes without waiting. After a failure the
    connection is not kept, nor is one that is older than `max_age` seconds.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[C]],
        close: Callable[[C], Awaitable[object]],
        drop: Callable[[C], object],
        timeout: float,
        max_age: float = math.inf,
    ) -> None:
        self._connect = connect
        self._close = close
        self._drop = drop
        self._timeout = timeout
        self._max_age = max_age
        self._slots: PerLoop[_Slot[C, anyio.Lock]]
        self._slots = PerLoop(lambda: _Slot(anyio.Lock()), self._retire)

    async def run(self, work: Callable[[C], Awaitable[T]]) -> T:
        """Return what `work` makes of the connection, or raise what it raised.

        Work that fails on a connection which may have died since the last run is done once more, on
        a new one. Raises `ProbeTimeoutError` when it isn't done in time.
        """
        slot = await self._slots.get()
        scope = anyio.CancelScope()
        try:
            with anyio.fail_after(self._timeout) as scope:
                async with slot.lock:
                    try:
                        return await self._run(slot, work)
                    finally:
                        if slot.retired:
                            self._discard(slot)
        except ProbeFailedError:
            raise
        except Exception as exc:
            # A driver may have an error of its own for having been cancelled.
            if isinstance(exc, TimeoutError) or scope.cancel_called:
                raise _late(self._timeout) from exc
            raise

    async def aclose(self) -> None:
        """Close this loop's connection, or see to it that the run that uses it does."""
        await self._slots.aclose()

    async def _run(self, slot: _Slot[C, anyio.Lock], work: Callable[[C], Awaitable[T]]) -> T:
        if slot.age() > self._max_age:
            self._discard(slot)
        kept = slot.connection is not None
        try:
            return await self._once(slot, work)
        except (ProbeFailedError, TimeoutError):
            raise
        except Exception:
            if not kept:
                raise
        return await self._once(slot, work)

    async def _once(self, slot: _Slot[C, anyio.Lock], work: Callable[[C], Awaitable[T]]) -> T:
        connection = slot.connection
        if connection is None:
            connection = slot.put(await self._connect())
        try:
            return await work(connection)
        except BaseException:
            self._discard(slot)
            raise

    async def _retire(self, slot: _Slot[C, anyio.Lock]) -> None:
        slot.retired = True
        with anyio.move_on_after(_CLOSE_LIMIT, shield=True):
            async with slot.lock:
                try:
                    if slot.connection is not None:
                        with suppress(Exception):  # it may be in any state
                            await self._close(slot.connection)
                finally:
                    self._discard(slot)

    def _discard(self, slot: _Slot[C, anyio.Lock]) -> None:
        connection = slot.take()
        if connection is not None:
            with suppress(Exception):  # it may be in any state
                self._drop(connection)


L = TypeVar("L")


class _Slot(Generic[C, L]):
    """Where the connection of one process or loop is; `lock` is held by who uses it."""

    def __init__(self, lock: L) -> None:
        self.lock = lock
        self.connection: C | None = None
        self.retired = False
        """Once True, the run that uses the connection closes it at its end."""
        self._since = 0.0

    def put(self, connection: C) -> C:
        self.connection, self._since = connection, time.monotonic()
        return connection

    def age(self) -> float:
        return 0.0 if self.connection is None else time.monotonic() - self._since

    def take(self) -> C | None:
        connection, self.connection = self.connection, None
        return connection


def _left(until: float) -> float:
    """Return the seconds left, or raise `TimeoutError`: to a driver 0 may mean without end."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _late(timeout: float) -> ProbeTimeoutError:
    return ProbeTimeoutError(f"no answer within {timeout:g} s")
