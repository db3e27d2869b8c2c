"""A Redis connection of a probe's own, beside the app's client, for who asks from a thread."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from healthmw._driver import time_limit
from healthmw._kept import KeptConnection
from healthmw._redis_clients import OwnClients, of_pool
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

T = TypeVar("T")


class OwnRedis:
    """Asks over one connection, made as `client` makes its own, from any thread, one at a time.

    The connection is kept between uses, in each process, and replaced when it has died. Answers
    come as bytes, whatever the app's client makes of them.
    """

    def __init__(self, client: redis.Redis, *, timeout: float) -> None:
        origin = of_pool(client.connection_pool, is_async=False)
        self._origin = replace(origin, settings=origin.settings | {"decode_responses": False})
        self._timeout = timeout
        self._kept: KeptConnection[OwnClients] = KeptConnection(
            connect=lambda _: OwnClients(self._origin, timeout),
            close=OwnClients.disconnect,
            timeout=timeout,
        )
        self.close = self._kept.close

    @property
    def address(self) -> str:
        """Host, port and number of the database, or the socket's path; a service by Sentinel."""
        return str(self._origin)

    def run(self, work: Callable[[redis.Redis], T]) -> T:
        """Return what `work` makes of a sync client; it may be called twice.

        Raises `ProbeTimeoutError`, and `ProbeFailedError`.
        """
        from redis import RedisError
        from redis import TimeoutError as LateError

        def in_time(own: OwnClients, seconds: float) -> T:
            try:
                # The socket's own timeout counts anew with each byte that arrives; this does not.
                with own.plainly(), time_limit(seconds, own.disconnect):
                    return work(own.get())
            finally:
                own.release()

        try:
            return self._kept.run(in_time)
        except LateError as exc:
            raise ProbeTimeoutError(f"no answer within {self._timeout:g} s") from exc
        except RedisError as exc:
            raise ProbeFailedError(f"{type(exc).__name__}: {exc}") from exc
