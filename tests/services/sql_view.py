"""A SQL server's own view of its clients."""

from __future__ import annotations

import time
from dataclasses import dataclass

import sqlalchemy as sa

from tests.services.servers import MariaDB, PostgreSQL

PATIENCE = 15.0  # seconds: far more than any bound under test, and less than for ever


@dataclass(frozen=True)
class ServerView:
    """A real server, and what it says of its clients."""

    server: PostgreSQL | MariaDB

    def clients(self) -> list[str]:
        """Return the state of each client's connection, but for the one that asks."""
        if isinstance(self.server, PostgreSQL):
            query = (
                "SELECT state FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        else:
            query = (
                "SELECT IF(trx_id IS NULL, command, 'transaction') FROM"
                " information_schema.processlist LEFT JOIN information_schema.innodb_trx"
                " ON trx_mysql_thread_id = id"
                " WHERE user = 'app' AND id <> connection_id()"
            )
        return self.ask(query)

    def hang_up_on_all(self) -> None:
        if isinstance(self.server, PostgreSQL):
            self.ask(
                "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        else:
            ids = self.ask(
                "SELECT id FROM information_schema.processlist"
                " WHERE user = 'app' AND id <> connection_id()"
            )
            for number in ids:
                self.ask(f"KILL {number}")

    def ask(self, query: str) -> list[str]:
        driver = "psycopg" if isinstance(self.server, PostgreSQL) else "pymysql"
        engine = sa.create_engine(
            self.server.dsn(driver), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            result = connection.execute(sa.text(query))
            return [str(row[0]) for row in result] if result.returns_rows else []

    def wait_for_clients(self, number: int) -> list[str]:
        """Wait until that many clients are connected: a server notices a goodbye a bit later."""
        deadline = time.monotonic() + PATIENCE
        while len(found := self.clients()) != number:
            assert time.monotonic() < deadline, f"{number} connections wanted, there are {found}"
            time.sleep(0.02)
        return found
