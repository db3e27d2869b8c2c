"""PostgreSQL and MariaDB, through SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from healthmw.probes import SQLAlchemyProbe
from tests.faults.databases import MariaDBSubject, PostgreSQLSubject

if TYPE_CHECKING:
    from healthmw._probe import Probe
    from tests.faults.subject import Address


class Psycopg(PostgreSQLSubject):
    """By psycopg, in a thread."""

    name = "`SQLAlchemyProbe`, psycopg"

    def probe(self, at: Address, timeout: float) -> Probe:
        import sqlalchemy as sa

        engine = sa.create_engine(self.url(at, "postgresql+psycopg"), connect_args=self.libpq(at))
        return SQLAlchemyProbe(engine, timeout=timeout)


class AsyncPsycopg(PostgreSQLSubject):
    """By psycopg, on the event loop."""

    name = "`SQLAlchemyProbe`, async psycopg"

    def probe(self, at: Address, timeout: float) -> Probe:
        from sqlalchemy.ext.asyncio import create_async_engine

        url = self.url(at, "postgresql+psycopg")
        return SQLAlchemyProbe(
            create_async_engine(url, connect_args=self.libpq(at)), timeout=timeout
        )


class Asyncpg(PostgreSQLSubject):
    """By asyncpg."""

    name = "`SQLAlchemyProbe`, asyncpg"

    def probe(self, at: Address, timeout: float) -> Probe:
        from sqlalchemy.ext.asyncio import create_async_engine

        url = self.url(at, "postgresql+asyncpg")
        return SQLAlchemyProbe(
            create_async_engine(url, connect_args={"ssl": self.context(at)}), timeout=timeout
        )


class PyMySQL(MariaDBSubject):
    """By PyMySQL."""

    name = "`SQLAlchemyProbe`, PyMySQL"

    def probe(self, at: Address, timeout: float) -> Probe:
        import sqlalchemy as sa

        # Without a word on TLS it loads the machine's authorities each time that it connects.
        tls: dict[str, Any] = {"ssl_disabled": True}
        if at.ca is not None:
            tls = {"ssl_ca": str(at.ca), "ssl_verify_identity": True}
        engine = sa.create_engine(self.url(at, "mariadb+pymysql"), connect_args=tls)
        return SQLAlchemyProbe(engine, timeout=timeout)
