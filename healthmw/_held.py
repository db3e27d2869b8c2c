"""Resources of a process or an event loop: made on first use, and never taken along in a fork."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakSet

from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

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
