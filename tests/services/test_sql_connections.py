"""However many ask at once, a probe has one connection a process: by the database's own count."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest

from tests.servers.boot import KINDS, Server
from tests.services.servers import PASSWORD, MariaDB, PostgreSQL
from tests.services.sql_app import probes
from tests.waiting import until_sync

if TYPE_CHECKING:
    from pathlib import Path

AT_ONCE = 500
PATIENCE = 60.0


class Watcher:
    """Counts, again and again in a thread, the clients that a database itself sees."""

    def __init__(self, database: PostgreSQL | MariaDB) -> None:
        self._database = database
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.counts: list[int] = []

    def __enter__(self) -> list[int]:
        self._thread.start()
        until_sync(lambda: self.counts)
        return self.counts

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(PATIENCE)

    def _watch(self) -> None:
        with self._connect() as connection:
            cursor = connection.cursor()
            while not self._end.wait(0.005):
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                    if isinstance(self._database, PostgreSQL)
                    else "SELECT count(*) FROM information_schema.processlist"
                    " WHERE user = 'app' AND id <> connection_id()"
                )
                self.counts.append(int(cursor.fetchone()[0]))

    def _connect(self) -> Any:
        if isinstance(self._database, PostgreSQL):
            return psycopg.connect(self._database.dsn(), autocommit=True)
        return pymysql.connect(
            host="127.0.0.1", port=self._database.port, user="app", password=PASSWORD,
            autocommit=True,
        )  # fmt: skip


async def rush(port: int) -> set[bytes]:
    """Ask for the health, all at once; return the different answers' first lines and bodies."""

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health_check HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.split(b"\r\n")[0] + b" " + answer.rpartition(b"\r\n")[2]

    async with asyncio.timeout(PATIENCE):
        return set(await asyncio.gather(*(ask() for _ in range(AT_ONCE))))


@pytest.mark.parametrize("service", ["postgresql", "mariadb"])
@pytest.mark.parametrize(
    "serving", [("uvicorn asyncio", "asgi", 1), ("gunicorn gthread", "wsgi", 2)], ids=str
)
def test_500_requests_at_once_are_one_connection_a_process(
    serving: tuple[str, str, int], service: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    kind, app, workers = serving
    database: PostgreSQL | MariaDB = request.getfixturevalue(service)
    dsn = database.dsn().replace("mariadb+pymysql", "mysql")
    command = KINDS[kind].command(f"tests.services.sql_app:{app}", workers)
    with Server(command, tmp_path, up="/", DSN=dsn) as server, Watcher(database) as counts:
        assert asyncio.run(rush(server.port)) == {b"HTTP/1.1 200 OK OKAY"}
    each = len(probes(dsn))
    assert each <= max(counts) <= workers * each, max(counts)
