"""Instances of the shop, each with a PostgreSQL of its own, and the customers in front of them."""

from __future__ import annotations

import http.client
import signal
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from tests.recipes.pages import Daemon
from tests.servers.boot import PATIENCE, eventually
from tests.services.servers import PostgreSQL, free_port

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

DRAIN_DELAY = 2.0
"""Seconds: many times the interval at which the balancers of these tests look."""


class Shop(Daemon):
    """One instance, always on the same port."""

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir()
        self.name = name
        self.database = PostgreSQL()
        port = free_port()
        command = f"-m uvicorn --port {port} --timeout-graceful-shutdown 20 tests.recipes.shop:app"
        super().__init__([sys.executable, *command.split()], folder, port, path="/health_check")
        self.tell(
            NAME=name,
            DATABASE_URL=self.database.dsn("asyncpg"),
            DRAIN_DELAY=str(DRAIN_DELAY),
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def restart(self) -> None:
        """Stop it as a deploy does, by SIGTERM, and start it again."""
        self.end(signal.SIGTERM)
        self.__enter__()

    def mend(self) -> None:
        """Bring it back to what a test may expect: with its database, and not draining."""
        if not self.database.pids():
            self.database.start()
        if self.exit_status is not None:
            self.__enter__()
        elif b"draining" in self.get().body:
            self.restart()
        eventually(lambda: self.get().body == b"OKAY", self.tail)

    def __enter__(self) -> Self:
        self.database.mend()
        return super().__enter__()


class Customers:
    """A few who ask for the page without a pause, half of them on a connection that they keep.

    Use as a context manager. Each request that fails is kept.
    """

    def __init__(self, port: int, clients: int = 4) -> None:
        self.failed: list[str] = []
        self._port = port
        self._answers: deque[tuple[float, str]] = deque(maxlen=1000)
        self._over = threading.Event()
        self._clients = [
            threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        for client in self._clients:
            client.join(PATIENCE)

    def go_on(self, by: Collection[str], answers: int = 60) -> None:
        """Wait for so many answers to requests from now on; all must be by these instances."""
        began = time.monotonic()
        eventually(lambda: len(self._since(began)) >= answers, lambda: self.failed[:5])
        assert set(self._since(began)) <= set(by)

    def settle(self, on: Collection[str]) -> None:
        """Wait until no request fails, all answers are by these, and each has its share."""

        def settled() -> bool:
            last = [name for _, name in list(self._answers)[-40:]]
            return len(last) == 40 and set(last) == set(on)

        self._answers.clear()
        eventually(settled, lambda: (self.failed[:5], list(self._answers)[-10:]))

    def _since(self, began: float) -> list[str]:
        return [name for asked, name in list(self._answers) if asked >= began]

    def _ask(self, keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        while not self._over.wait(0.02):
            asked = time.monotonic()
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as exc:
                self._fail(asked, repr(exc))
                connection.close()
                continue
            if answer.status == 200:
                self._answers.append((asked, body))
            else:
                self._fail(asked, f"{answer.status} {body[:100]}")
            if not keep:
                connection.close()
        connection.close()

    def _fail(self, asked: float, why: str) -> None:
        self.failed.append(why)
        self._answers.append((asked, "nobody"))
