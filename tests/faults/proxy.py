"""The way to a real server, and what can befall it: refusals, silence, garbage, resets, a drip."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeVar

from tests.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

Preamble = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Says, on the server's part, what comes before TLS begins."""

_CHUNK = 65536
_PATIENCE = 30.0
_CONNECT = 2.0  # seconds; a server that is frozen takes no more connections at some point
_NOISE = b"\xff\xfe\x00 garbage \xa7\r\n"


class Mode(Enum):
    """What happens to the server's answers."""

    FORWARD = auto()
    SILENT = auto()
    GARBAGE = auto()
    CUT = auto()
    DRIP = auto()


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # Connections that are cut in the middle are what this is for; nobody is to be told.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    def close(self) -> None:
        self.call(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()


class Proxy:
    """Listens in front of a server's port, counts connections, and mistreats the answers.

    Its state belongs to the loop's thread; the methods may be called from any other.
    """

    def __init__(self, loop: LoopThread, target: int) -> None:
        self._loop = loop
        self._target = target
        # Never listens: keeps the port ours while nobody does.
        self._reserved = _bound(0)
        self.port: int = self._reserved.getsockname()[1]
        self._listener: Listener | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.mode = Mode.FORWARD
        self.cut_after = 0
        """In mode CUT: reset a connection after so many bytes of answers."""
        self.interval = 0.0
        """In mode DRIP: seconds between two bytes."""
        self.answered = 0
        """The bytes that the connection last opened has had in answers."""
        self.listen()

    @property
    def open(self) -> int:
        """How many clients are connected."""
        return len(self._open)

    def listen(self) -> None:
        """Accept connections again."""
        self._loop.call(self._listen())

    def refuse(self) -> None:
        """Refuse connections, and reset those that there are."""
        self._loop.call(self._refuse())

    def drop(self, *, politely: bool = False) -> None:
        """Reset all connections, or close them with a goodbye."""
        self._loop.call(self._drop(politely=politely))

    def close(self) -> None:
        self.refuse()
        self._reserved.close()

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = Listener(_bound(self.port), self._serve)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._drop()

    async def _drop(self, *, politely: bool = False) -> None:
        for writer in [*self._open]:
            if politely:
                writer.close()
            else:
                _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answered = 0
        self._open.add(writer)
        try:
            if self._listener is None:
                raise ConnectionError("refused since it was accepted")
            await self._join(reader, writer)
        except (OSError, TimeoutError):
            _reset(writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._open.discard(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode is Mode.SILENT:
            while await reader.read(_CHUNK):
                pass
            return
        async with asyncio.timeout(_CONNECT):
            answers, questions = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await _first_of(_copy(reader, questions), self._answer(answers, writer))
        finally:
            questions.close()

    async def _answer(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        muted = False
        while data := await answers.read(_CHUNK):
            muted = muted or self.mode is Mode.SILENT
            if muted:
                continue
            if self.mode is Mode.GARBAGE:
                data = (_NOISE * (len(data) // len(_NOISE) + 1)) * 4
            if self.mode is Mode.CUT and sent + len(data) >= self.cut_after:
                writer.write(data[: max(self.cut_after - sent, 1)])
                _reset(writer)
                return
            sent += len(data)
            if self.mode is Mode.DRIP:
                data = await self._drip(data, writer)
            writer.write(data)
            await writer.drain()
            self.answered = sent
        if muted:
            await asyncio.Event().wait()  # until the client goes

    async def _drip(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        """Send `data` byte by byte while the mode is DRIP; return what is left then."""
        sent = 0
        while sent < len(data) and self.mode is Mode.DRIP:
            writer.write(data[sent : sent + 1])
            sent += 1
            await asyncio.sleep(self.interval)
        return data[sent:]


class Terminator:
    """Speaks TLS in front of a server that doesn't, with a certificate that can be changed."""

    def __init__(self, loop: LoopThread, target: int, preamble: Preamble) -> None:
        self._loop = loop
        self._target = target
        self._preamble = preamble
        self.context: ssl.SSLContext
        """What to show to those who connect from now on."""
        sock = _bound(0)
        self.port: int = sock.getsockname()[1]
        self._listener = loop.call(self._listen(sock))

    def close(self) -> None:
        self._loop.call(self._close())

    async def _listen(self, sock: socket.socket) -> Listener:
        return Listener(sock, self._serve)

    async def _close(self) -> None:
        self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._preamble(reader, writer)
            tls = _Tls(reader, writer, self.context)
            await tls.shake_hands()
            await self._join(tls)
        except (OSError, ssl.SSLError, EOFError):
            pass
        finally:
            writer.close()

    async def _join(self, tls: _Tls) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", self._target)

        async def up() -> None:
            while data := await tls.read():
                questions.write(data)
                await questions.drain()

        async def down() -> None:
            while data := await answers.read(_CHUNK):
                await tls.write(data)

        try:
            await _first_of(up(), down())
        finally:
            questions.close()


class _Tls:
    """The server's end of TLS on a pair of streams.

    By hand, for what a client says first may have been read before asyncio could take over.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def shake_hands(self) -> None:
        await self._step(self._tls.do_handshake)

    async def read(self) -> bytes:
        return await self._step(lambda: self._tls.read(_CHUNK))

    async def write(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def _step(self, work: Callable[[], T]) -> T:
        while True:
            try:
                return work()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._reader.read(_CHUNK)
                if not data:
                    raise EOFError from None
                self._incoming.write(data)
            finally:
                await self._flush()  # if it fails, the alert that says why

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            self._writer.write(data)
            await self._writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


async def _end_all() -> None:
    """End every task but this one, and let the connections that they close be closed."""
    await asyncio.sleep(0)  # one that was cancelled before it began would close nothing
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # closing a transport takes one more turn of the loop


async def _first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
