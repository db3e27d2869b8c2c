"""Plain requests, one after the other or many at once, each with a bound."""

from __future__ import annotations

import asyncio
import http.client
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status 0: there was none within the bound."""

    status: int
    took: float
    """Seconds."""


def ask(port: int, path: str, *, bound: float = 60.0) -> Answer:
    """Send one request, on a connection of its own; wait `bound` seconds at most."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=bound)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        status = response.status
    except (OSError, http.client.HTTPException):
        status = 0
    finally:
        connection.close()
    return Answer(status=status, took=time.perf_counter() - began)


async def _one(port: int, path: str, bound: float) -> Answer:
    began, status = time.perf_counter(), 0
    try:
        async with asyncio.timeout(bound):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                writer.write(head.encode())
                answer = await reader.read()
                status = int(answer.split(b" ", 2)[1])
            finally:
                writer.close()
    except (OSError, TimeoutError, IndexError, ValueError):
        status = 0
    return Answer(status=status, took=time.perf_counter() - began)


def ask_many(port: int, path: str, *, times: int, at_once: int, bound: float) -> list[Answer]:
    """Send `times` requests, so many at once."""
    answers: list[Answer] = []

    async def client() -> None:
        while len(begun) < times:
            begun.append(None)
            answers.append(await _one(port, path, bound))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(client())

    begun: list[None] = []
    asyncio.run(main())
    return answers
