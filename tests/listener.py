"""Accepts connections on an asyncio loop, and loses none when it closes.

asyncio's own server leaves to the garbage collector what it has accepted in the turn in which it
closes.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable


class Listener:
    """Has `serve` called with the streams of each connection to `sock`, in a task of its own.

    To be used on the loop alone. `backlog` is how many connections may queue.
    """

    def __init__(
        self,
        sock: socket.socket,
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        *,
        backlog: int = 512,
    ) -> None:
        self._sock = sock
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self._serving: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        sock.listen(backlog)
        self._loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Accept no more; what is being served goes on."""
        self._loop.remove_reader(self._sock)
        self._sock.close()

    async def served(self, timeout: float) -> None:
        """Wait until all connections have been served, but for so many seconds at most."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=timeout)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it has gone again, or there is no file to be had
            client, _ = self._sock.accept()
            client.setblocking(False)
            task = self._loop.create_task(self._begin(client))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _begin(self, client: socket.socket) -> None:
        await self._serve(*await asyncio.open_connection(sock=client))
