"""A relay between a probe and a real server, which can fall silent or refuse, and mend."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

from tests.listener import Listener
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 20.0


class Relay:
    """Hands on what goes to a free port of 127.0.0.1 to another one, in a thread of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._speaks = True
        self._taken = 0
        self._newest: object = None  # the address of who has connected last
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._on_loop(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._on_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()

    def taken(self) -> int:
        """Return how many connections have been made to it, those among them that still queue."""
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            until_sync(lambda: self._newest == last.getsockname())
            self._taken -= 1  # ours is no one's
            return self._taken

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Cut every connection, and refuse new ones."""
        self._on_loop(self._shut())
        try:
            yield
        finally:
            self._on_loop(self._open(self.port))

    @contextlib.contextmanager
    def hangs(self) -> Iterator[None]:
        """Take connections and bytes, and hand on none, not later either."""
        self._on_loop(self._fall_silent())
        try:
            yield
        finally:
            self._on_loop(self._speak())

    def _on_loop(self, main: object) -> int:
        assert asyncio.iscoroutine(main)
        result: int = asyncio.run_coroutine_threadsafe(main, self._loop).result(_PATIENCE)
        return result

    async def _open(self, port: int = 0) -> int:
        sock = socket.create_server(("127.0.0.1", port))
        opened: int = sock.getsockname()[1]
        self._listener = Listener(sock, self._serve)
        return opened

    async def _shut(self) -> None:
        self._listener.close()
        await self._cut()

    async def _close(self) -> None:
        await self._shut()
        await self._listener.served(_PATIENCE)

    async def _cut(self) -> None:
        for writer in [*self._connections]:
            writer.transport.abort()

    async def _fall_silent(self) -> None:
        self._speaks = False

    async def _speak(self) -> None:
        self._speaks = True
        await self._cut()  # what was lost on the way would be missed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._taken += 1
        self._newest = writer.get_extra_info("peername")
        self._connections.add(writer)
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
            self._connections.add(there[1])
            try:
                await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
            finally:
                self._connections.discard(there[1])
                there[1].transport.abort()
        except OSError:
            return
        finally:
            self._connections.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self._speaks:
                    writer.write(data)
        writer.transport.abort()  # and with it the other direction
