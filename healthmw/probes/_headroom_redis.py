"""The connection limit of a Redis server, and what counts towards it now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio

from healthmw._addresses import look_up_any
from healthmw._driver import check_timeout, require_asyncio, time_limit, with_latency
from healthmw._options import WrongTypeError
from healthmw._redis_clients import OwnClients, of_pool
from healthmw.exceptions import MissingExtraError, ProbeTimeoutError
from healthmw.probes._headroom_forecast import Limit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import redis
    import redis.asyncio

    from healthmw._probe import Outcome

_UNLIMITED = 2**31  # what redis-py's pools had for a limit before they had one


class RedisErrand:
    """Read the limit on a connection made as the client makes its own, and closed afterwards."""

    def __init__(
        self,
        target: str | redis.Redis | redis.asyncio.Redis,
        judge: Callable[[list[Limit]], Outcome],
        *,
        timeout: float,
    ) -> None:
        try:
            import redis
            import redis.asyncio
        except ImportError as exc:
            raise MissingExtraError("HeadroomProbe", extra="redis") from exc
        self._timeout = check_timeout(timeout)
        self._judge = judge
        self.pool_limit: int | None = None
        """How many connections the client's pool opens at most, where it has a limit."""
        if isinstance(target, str):
            target = _from_url(target)
        elif not isinstance(target, redis.Redis | redis.asyncio.Redis):
            raise WrongTypeError(
                "target must be a redis.Redis, a redis.asyncio.Redis or a URL of one, not"
                f" {type(target).__name__}"
            )
        elif target.connection_pool.max_connections < _UNLIMITED:
            self.pool_limit = target.connection_pool.max_connections
        self.is_async = isinstance(target, redis.asyncio.Redis)
        self._origin = of_pool(target.connection_pool, is_async=self.is_async)

    def __str__(self) -> str:
        return f"redis {self._origin}"

    def run(self) -> Outcome | Awaitable[Outcome]:
        """Go once: at once for a sync client, else by a coroutine."""
        return self._run_async() if self.is_async else self._run_sync()

    async def aclose(self) -> None:
        """Do nothing: nothing is kept between runs."""

    def _run_sync(self) -> Outcome:
        from redis.exceptions import TimeoutError as SilenceError

        started = time.monotonic()
        own = OwnClients(self._origin, self._timeout)
        client = own.get()
        try:
            with own.plainly(), time_limit(self._timeout, own.disconnect):
                info, clients = client.info(), client.client_list()
                number = client.client_id()
                allows = info.get("maxclients")
                if allows is None:  # before Redis 7
                    allows = client.config_get("maxclients")["maxclients"]
        except (TimeoutError, SilenceError) as exc:
            raise self._late() from exc
        finally:
            own.disconnect()
        found = self._judge([_limit(int(allows), info, clients, number)])
        return with_latency(found, time.monotonic() - started)

    async def _run_async(self) -> Outcome:
        require_asyncio("redis.asyncio", instead="pass a sync redis.Redis client on trio")
        from redis.exceptions import TimeoutError as SilenceError

        started = time.monotonic()
        own = OwnClients(self._origin, self._timeout)
        client = own.get()
        try:
            with own.plainly(), anyio.fail_after(self._timeout):
                await look_up_any(own.hosts(client))
                info, clients = await client.info(), await client.client_list()
                number = await client.client_id()
                allows = info.get("maxclients")
                if allows is None:
                    allows = (await client.config_get("maxclients"))["maxclients"]
        except (TimeoutError, SilenceError) as exc:
            raise self._late() from exc
        finally:
            with anyio.CancelScope(shield=True):
                await own.adisconnect()
        found = self._judge([_limit(int(allows), info, clients, number)])
        return with_latency(found, time.monotonic() - started)

    def _late(self) -> ProbeTimeoutError:
        return ProbeTimeoutError(f"no answer within {self._timeout:g} s")


def _from_url(url: str) -> redis.asyncio.Redis:
    import redis.asyncio

    try:
        return redis.asyncio.Redis.from_url(url)
    except ValueError:
        # Without redis-py's own words: they may quote the part that it took for the port.
        raise ValueError(
            "target must be a URL like redis://user:password@host:6379/0, rediss://... or unix://..."
        ) from None


def _limit(allows: int, info: Any, clients: Any, number: int) -> Limit:
    """Count as the app's own the clients of this user, with this name, in this database."""

    def identity(client: Any) -> tuple[Any, ...]:
        return client.get("user"), client.get("name"), client.get("db")

    me = next(identity(one) for one in clients if int(one["id"]) == number)
    # What `connected_clients` leaves out counts as well.
    beside = ("connected_slaves", "cluster_connections")
    return Limit(
        scope="server",
        name="maxclients",
        allows=allows,
        in_use=info["connected_clients"] + sum(info.get(name, 0) for name in beside),
        ours=sum(identity(one) == me for one in clients),
        way_out="raise maxclients",
    )
