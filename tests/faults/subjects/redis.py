"""Redis, through redis-py."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from healthmw.probes import RedisProbe
from tests.faults.subject import Address, Subject
from tests.services.servers import PASSWORD, Redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from healthmw._probe import Probe


class RedisSubject(Subject):
    """A probe of Redis."""

    server: Redis
    _password = PASSWORD

    def new_server(self) -> Redis:
        return Redis()

    def options(self, at: Address) -> dict[str, Any]:
        tls = {} if at.ca is None else {"ssl": True, "ssl_ca_certs": str(at.ca)}
        return {"host": at.host, "port": at.port, "password": at.password, **tls}

    @contextmanager
    def fill(self) -> Iterator[None]:
        client = self._client()
        client.config_set("maxclients", 1)
        try:
            yield
        finally:
            client.config_set("maxclients", 1000)
            client.close()

    def accept(self, password: str) -> None:
        client = self._client()
        client.config_set("requirepass", password)
        client.close()
        self._password = password

    def _client(self) -> Any:
        import redis

        return redis.Redis(
            port=self.server.port, password=self._password, single_connection_client=True
        )


class RedisSync(RedisSubject):
    """By a sync client."""

    name = "`RedisProbe`, `redis.Redis`"

    def probe(self, at: Address, timeout: float) -> Probe:
        import redis

        return RedisProbe(redis.Redis(**self.options(at)), timeout=timeout)


class RedisAsync(RedisSubject):
    """By an async client."""

    name = "`RedisProbe`, `redis.asyncio.Redis`"

    def probe(self, at: Address, timeout: float) -> Probe:
        import redis.asyncio

        return RedisProbe(redis.asyncio.Redis(**self.options(at)), timeout=timeout)
