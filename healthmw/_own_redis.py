"""Redis clients of a probe's own, with one connection each, beside the app's client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from healthmw._driver import time_limit
from healthmw._kept import KeptConnection
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import redis
    import redis.asyncio

T = TypeVar("T")

# What redis-py's pools and clusters add to the settings of their connections for their own use.
_INTERNALS = ("_handler", "himport_registry", "event_dispatcher", "redis_connect_func")
_NO_CONNECTION_SETTINGS = {"connection_pool", "max_connections", "response_callbacks"}


class OwnRedis:
    """A sync client with one connection, made as `client` makes its own, for any thread.

    The connection is kept between uses, in each process, and replaced when it has died. Answers
    come as bytes, whatever the app's client makes of them.
    """

    def __init__(self, client: redis.Redis, *, timeout: float) -> None:
        self._pool = client.connection_pool
        self._timeout = timeout
        self._kept: KeptConnection[redis.Redis] = KeptConnection(
            connect=lambda _: sync_beside(self._pool, timeout, decode_responses=False),
            close=lambda own: own.connection_pool.disconnect(),
            timeout=timeout,
        )
        self.close = self._kept.close

    @property
    def address(self) -> str:
        """Host, port and number of the database, or the socket's path."""
        found = self._pool.connection_kwargs
        address = f"{found.get('host')}:{found.get('port', 6379)}/{found.get('db', 0)}"
        return found.get("path") or address

    def run(self, work: Callable[[redis.Redis], T]) -> T:
        """Return what `work` makes of it. Raises `ProbeTimeoutError`, and `ProbeFailedError`."""
        from redis import RedisError
        from redis import TimeoutError as LateError

        def in_time(client: redis.Redis, seconds: float) -> T:
            # The socket's own timeout counts anew with each byte that arrives; this one does not.
            with time_limit(seconds, client.connection_pool.disconnect):
                return work(client)

        try:
            return self._kept.run(in_time)
        except LateError as exc:
            raise ProbeTimeoutError(f"no answer within {self._timeout:g} s") from exc
        except RedisError as exc:
            raise ProbeFailedError(f"{type(exc).__name__}: {exc}") from exc


def sync_beside(pool: Any, timeout: float, **settings: Any) -> redis.Redis:
    """Return a client of one connection, made as `pool` makes its own, but in time, once."""
    import redis

    own = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call] # redis-py's signature
        max_connections=1,
        timeout=timeout,
        connection_class=pool.connection_class,
        **(bounded(settings_of(pool.connection_kwargs), timeout, is_async=False) | settings),
    )
    return redis.Redis(connection_pool=own)


def async_beside(pool: Any, timeout: float) -> redis.asyncio.Redis:
    """Return the like of it for asyncio."""
    import redis.asyncio

    own = redis.asyncio.BlockingConnectionPool(
        max_connections=1,
        timeout=timeout,
        connection_class=pool.connection_class,
        **bounded(settings_of(pool.connection_kwargs), timeout, is_async=True),
    )
    return redis.asyncio.Redis(connection_pool=own)


def settings_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a pool's or a cluster's settings that make one connection."""
    return {
        name: value
        for name, value in found.items()
        if not name.endswith(_INTERNALS)
        and not name.startswith("orig_")
        and name not in _NO_CONNECTION_SETTINGS
    }


def bounded(settings: Mapping[str, Any], limit: float, *, is_async: bool) -> dict[str, Any]:
    """Return `settings` with bounds in time (seconds a wait) and without retries."""
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    found = dict(settings)
    for name in ("socket_timeout", "socket_connect_timeout"):
        found[name] = min(limit, found.get(name) or limit)
    retry: Any = AsyncRetry if is_async else Retry
    return found | {"retry": retry(NoBackoff(), 0), "retry_on_error": []}
