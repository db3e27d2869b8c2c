"""A steady load: requests that leave when they are due, whatever has become of those before."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_PATIENCE = 10.0  # seconds; a request that takes longer has not been answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a request got, when it left and how long it took. Status 0: there was no answer."""

    path: str
    began: float
    """Monotonic seconds."""
    took: float
    status: int = 0
    body: str = ""
    health: str | None = None

    @property
    def ended(self) -> float:
        return self.began + self.took


class Load:
    """Asks for each path of `rates` so many times a second, from a thread of its own.

    Use as a context manager; at its end all requests have been answered, or given up.
    """

    def __init__(self, url: str, rates: Mapping[str, float]) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._rates = rates
        self._ending = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._done: Future[None] | None = None
        self.replies: list[Reply] = []

    def __enter__(self) -> Self:
        self._done = self._thread.submit(lambda: asyncio.run(self._main()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.shutdown()

    def stop(self) -> None:
        """Send no more, wait for what is under way, and raise what has gone wrong in here."""
        self._ending.set()
        if self._done is not None:
            self._done.result()

    async def _main(self) -> None:
        async with asyncio.TaskGroup() as group:
            for path, rate in self._rates.items():
                group.create_task(self._ask_steadily(path, rate))

    async def _ask_steadily(self, path: str, rate: float) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
                if self._ending.is_set():
                    break
                group.create_task(self._ask(path))

    async def _ask(self, path: str) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await self._exchange(path)
            status, body, health = _read(answer)
        except (OSError, ValueError):
            status, body, health = 0, "", None
        took = time.monotonic() - began
        self.replies.append(
            Reply(path=path, began=began, took=took, status=status, body=body, health=health)
        )

    async def _exchange(self, path: str) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            head = f"GET {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode())
            return await reader.read()
        finally:
            writer.close()


def _read(answer: bytes) -> tuple[int, str, str | None]:
    """Return status, body and verdict. Raises `ValueError` where that is no answer by HTTP."""
    head, end, body = answer.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    if not end:
        raise ValueError("it ended too early")
    headers = {name.lower(): value.strip() for name, _, value in (h.partition(":") for h in lines)}
    return int(first.split(" ")[1]), body, headers.get("health-status")
