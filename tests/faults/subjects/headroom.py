"""The room under a server's connection limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw.probes import HeadroomProbe
from tests.faults.databases import PostgreSQLSubject
from tests.faults.subjects.redis import RedisSubject

if TYPE_CHECKING:
    from healthmw._probe import Probe
    from tests.faults.subject import Address


class PostgreSQLRoom(PostgreSQLSubject):
    """Of PostgreSQL, by asyncpg."""

    name = "`HeadroomProbe`, asyncpg"

    def probe(self, at: Address, timeout: float) -> Probe:
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(
            self.url(at, "postgresql+asyncpg"), connect_args={"ssl": self.context(at)}
        )
        return HeadroomProbe(engine, processes=1, per_process=1, timeout=timeout)


class RedisRoom(RedisSubject):
    """Of Redis."""

    name = "`HeadroomProbe`, `redis.asyncio.Redis`"

    def probe(self, at: Address, timeout: float) -> Probe:
        import redis.asyncio

        client = redis.asyncio.Redis(**self.options(at))
        return HeadroomProbe(client, processes=1, per_process=1, timeout=timeout)
