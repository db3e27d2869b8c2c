"""Servers with little room, and what it takes to fill them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg

from tests.services.servers import PASSWORD, PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Closable(Protocol):
        def close(self) -> object: ...


class SmallPostgreSQL(PostgreSQL):
    """PostgreSQL for 20 connections, 3 of which are kept for superusers: Heroku's smallest plan."""

    def __init__(self) -> None:
        super().__init__(max_connections=20)

    def start(self) -> None:
        super().start()
        with self.admin() as admin:
            known = admin.execute("SELECT 1 FROM pg_roles WHERE rolname = 'web'").fetchone()
            for role in () if known else ("web", "worker"):
                admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")

    def admin(self) -> psycopg.Connection:
        """Return a superuser's connection, in autocommit."""
        return psycopg.connect(self.dsn(), autocommit=True)

    def dsn_of(self, role: str, driver: str = "", database: str = "postgres") -> str:
        dsn = self.dsn(driver).replace(f"//{self.user}:", f"//{role}:")
        return dsn.removesuffix("postgres") + database

    def sessions(self, asking: psycopg.Connection) -> int:
        """Return how many clients are connected, the one that asks included."""
        row = asking.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        ).fetchone()
        assert row is not None
        return int(row[0])


@contextlib.contextmanager
def filled(connect: Callable[[], Closable], refused: type[Exception]) -> Iterator[int]:
    """Connect until the server refuses; give how many it took."""
    with contextlib.ExitStack() as stack:
        taken = 0
        with contextlib.suppress(refused):
            while taken < 200:
                stack.callback(connect().close)
                taken += 1
        yield taken
