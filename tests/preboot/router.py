"""The platform's router and its users: HTTP over asyncio, one event loop for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HEALTH = "/health_check"

_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)
_LARGEST = 1 << 20  # bytes of an answer
_FIRST_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass(eq=False)
class Backend:
    """Somewhere that requests can be sent to, and what came of those that were."""

    name: str
    port: int
    tried: int = 0
    """How many requests of users were sent there."""
    under_way: int = 0


class NoAnswerError(Exception):
    """A backend gave no whole answer. Its text says why, in words for the router's log."""


class Router:
    """Hands each request to one of its `backends`, in turn. It does not try a second one.

    It belongs to the event loop; `backends` may be replaced from any thread.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.backends: Sequence[Backend] = ()
        self.log: Counter[str] = Counter()
        """Why requests were not answered, or badly, and how many."""
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=500)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(request))
                await writer.drain()
        finally:
            self._serving.discard(task)
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        path = request.split(b" ", 2)[1].decode()
        self._turn += 1
        backends = self.backends
        if not backends:
            return self._sorry("nobody to send it to")
        backend = backends[self._turn % len(backends)]
        of_a_user = not path.startswith(HEALTH)
        backend.tried += of_a_user
        backend.under_way += 1
        try:
            async with asyncio.timeout(self._patience):
                answer = await _exchange(backend.port, request)
        except TimeoutError:
            return self._sorry("no answer in time")
        except NoAnswerError as exc:
            return self._sorry(str(exc))
        finally:
            backend.under_way -= 1
        if of_a_user and status_of(answer) >= 500:
            self.log[f"status {status_of(answer)}"] += 1
        return answer

    def _sorry(self, reason: str) -> bytes:
        self.log[reason] += 1
        head = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        return head.encode()


class Users:
    """Ask for pages, one after the other each, and count how that goes."""

    def __init__(self, port: int, paths: Sequence[str], pause: float) -> None:
        self._port = port
        self._paths = paths
        self._pause = pause
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False
        self.answered = 0
        self.failed = 0

    @property
    def asked(self) -> int:
        """How many requests have come to an end, good or bad."""
        return self.answered + self.failed

    async def start(self, number: int) -> None:
        self._tasks = [asyncio.create_task(self._browse(which)) for which in range(number)]

    async def stop(self) -> None:
        """Let each finish what it has begun."""
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _browse(self, which: int) -> None:
        turn = which
        request = "GET {} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"
        while not self._over:
            path = self._paths[turn % len(self._paths)]
            turn += 1
            try:
                answer = await _exchange(self._port, request.format(path).encode())
            except NoAnswerError:
                self.failed += 1
            else:
                well = status_of(answer) == 200
                self.answered += well
                self.failed += not well
            await asyncio.sleep(self._pause)


def status_of(answer: bytes) -> int:
    found = _FIRST_LINE.match(answer)
    return int(found[1]) if found else 502


async def _exchange(port: int, request: bytes) -> bytes:
    """Send the request and return the whole answer; raise `NoAnswerError` where it is not whole."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        raise NoAnswerError("connection refused") from None
    try:
        writer.write(request)
        answer = b""
        while more := await reader.read(65536):
            answer += more
            if len(answer) > _LARGEST:
                raise NoAnswerError("an answer without an end")
            head, end, body = answer.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if end and length and len(body) >= int(length[1]):
                return answer
    except OSError:
        raise NoAnswerError("connection reset") from None
    else:
        raise NoAnswerError("connection closed")
    finally:
        writer.close()
