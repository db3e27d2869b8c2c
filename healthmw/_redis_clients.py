"""Redis clients of a probe's own: made as the app's client makes its own, one connection each."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import anyio

from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")
Address = tuple[str, int]

# What redis-py's pools and clusters add to the settings of their connections for their own use.
_INTERNALS = ("_handler", "himport_registry", "event_dispatcher", "redis_connect_func")
_NO_CONNECTION_SETTINGS = {"connection_pool", "max_connections", "response_callbacks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How the app's client connects. A cluster's has `nodes`, one of Sentinel has `sentinel`."""

    is_async: bool
    connection_class: type
    settings: dict[str, Any] = field(repr=False)
    nodes: tuple[Address, ...] = ()
    remap: Callable[[Address], Address] | None = None
    sentinel: Any = None
    service: str = ""
    is_master: bool = True
    check_connection: bool = False

    def __str__(self) -> str:
        found = self.settings
        if self.nodes:
            return "cluster " + _listed(self.nodes)
        if self.sentinel is not None:
            return f"{self.service} by sentinel {_listed(sentinel_addresses(self.sentinel))}"
        address = f"{found.get('host')}:{found.get('port', 6379)}/{found.get('db', 0)}"
        return found.get("path") or address


def origin_of(target: object) -> Origin | None:
    """Return how `target` connects; None if it is no client of redis-py."""
    import redis.asyncio
    import redis.asyncio.cluster
    import redis.cluster

    if isinstance(target, redis.Redis | redis.asyncio.Redis):
        return of_pool(target.connection_pool, is_async=isinstance(target, redis.asyncio.Redis))
    if isinstance(target, redis.asyncio.cluster.RedisCluster):
        seeds = [*target.nodes_manager.startup_nodes.values()]
        return Origin(
            is_async=True,
            connection_class=seeds[0].connection_class,
            settings=_settings_of(seeds[0].connection_kwargs),
            nodes=tuple((seed.host, int(seed.port)) for seed in seeds),
            remap=getattr(target.nodes_manager, "address_remap", None),
        )
    if isinstance(target, redis.cluster.RedisCluster):
        manager: Any = target.nodes_manager
        nodes = [*manager.startup_nodes.values(), *manager.nodes_cache.values()]
        pool = next(node.redis_connection for node in nodes if node.redis_connection)
        return Origin(
            is_async=False,
            connection_class=pool.connection_pool.connection_class,
            settings=_settings_of(pool.connection_pool.connection_kwargs),
            nodes=tuple(dict.fromkeys((node.host, int(node.port)) for node in nodes)),
            remap=getattr(manager, "address_remap", None),
        )
    return None


def sentinel_addresses(manager: Any) -> list[Address]:
    """Return where the sentinels of redis-py's `Sentinel` are."""
    found = (one.connection_pool.connection_kwargs for one in manager.sentinels)
    return [(one["host"], one["port"]) for one in found]


class OwnClients:
    """The clients of one process (sync) or event loop (async): one for each server asked.

    A lock guards them: `lock` among threads, `async_lock` among the tasks of a loop. `kept` holds
    those whose connection was well at the end of their last use.
    """

    def __init__(self, origin: Origin, timeout: float) -> None:
        self.lock = threading.Lock()
        self.async_lock = anyio.Lock()
        self.kept: WeakSet[Any] = WeakSet()
        self.seeds = [*origin.nodes]
        """A cluster's nodes, the one that answered last first."""
        self._origin = origin
        self._timeout = timeout
        self._clients: dict[Address | None, Any] = {}
        self._sentinels: list[Any] = []
        self._gone: list[Any] = []  # the clients of nodes that the cluster no longer has

    def get(self, address: Address | None = None) -> Any:
        """Return the client of a cluster's node, or of the one server that there is."""
        if address not in self._clients:
            self._clients[address] = self._make(address)
        return self._clients[address]

    def keep_to(self, seeds: list[Address]) -> None:
        """Take these for the cluster's nodes; let go of the clients of others when the run ends."""
        self.seeds = seeds
        for address in self._clients.keys() - set(seeds):
            self._gone.append(self._clients.pop(address))

    def ask(self, client: Any, work: Callable[[], T], until: float) -> T:
        """Return what `work` makes of a sync client, in a second try if need be, before `until`.

        That is where the connection was kept, and had died since the last run.
        """
        from redis.exceptions import ConnectionError as LostError

        kept = client in self.kept
        self.kept.discard(client)
        try:
            found = work()
        except LostError:
            if not kept or time.monotonic() >= until:
                raise
            found = work()
        self.kept.add(client)
        return found

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Say in plain words that no sentinel names a server."""
        try:
            yield
        except Exception as exc:
            # The sync and the async one are two classes, and tell all settings of all sentinels.
            if type(exc).__name__ not in {"MasterNotFoundError", "SlaveNotFoundError"}:
                raise
            service = self._origin.service
            raise ProbeFailedError(f"no sentinel names a server for {service!r}") from exc

    def hosts(self, client: Any) -> list[str | None]:
        """Return the names that `client` looks up for connecting, one of which will do."""
        if self._origin.sentinel is not None:
            return [host for host, _ in sentinel_addresses(self._origin.sentinel)]
        return [client.connection_pool.connection_kwargs.get("host")]

    def disconnect(self) -> None:
        """Close the connections; from another thread, it ends what waits for one."""
        self.kept.clear()
        self.release()
        for client in [*self._clients.values()]:
            client.connection_pool.disconnect()

    async def adisconnect(self) -> None:
        """Close the connections of async clients."""
        self.kept.clear()
        await self.arelease()
        for client in [*self._clients.values()]:
            await client.connection_pool.disconnect()

    def release(self) -> None:
        """Close the connections to sentinels, which a run needs only to find its server.

        And those to nodes that are gone.
        """
        for client in self._not_kept():
            client.connection_pool.disconnect()

    async def arelease(self) -> None:
        """Close the like of async clients."""
        for client in self._not_kept():
            await client.connection_pool.disconnect()

    def _not_kept(self) -> list[Any]:
        gone, self._gone = self._gone, []
        return [*self._sentinels, *gone]

    def _make(self, address: Address | None) -> Any:
        import redis
        import redis.asyncio

        origin = self._origin
        library: Any = redis.asyncio if origin.is_async else redis
        # Who is silent must leave time for asking the next one.
        limit = self._timeout / (2 if origin.nodes else 1)
        settings = bounded(origin.settings, limit, is_async=origin.is_async)
        settings["connection_class"] = origin.connection_class
        if address is not None:
            settings |= {"host": address[0], "port": address[1]}
        if origin.sentinel is None:
            pool = library.ConnectionPool(max_connections=1, **settings)
        else:
            pool = library.sentinel.SentinelConnectionPool(
                origin.service,
                self._make_sentinel(library.sentinel.Sentinel),
                is_master=origin.is_master,
                check_connection=origin.check_connection,
                max_connections=1,
                **settings,
            )
        return library.Redis(connection_pool=pool)

    def _make_sentinel(self, kind: Any) -> Any:
        theirs = self._origin.sentinel
        addresses = sentinel_addresses(theirs)
        limit = self._timeout / (len(addresses) + 1)
        bounds = bounded(theirs.sentinel_kwargs, limit, is_async=self._origin.is_async)
        ours = kind(addresses, theirs.min_other_sentinels, bounds)
        ours._force_master_ip = getattr(theirs, "_force_master_ip", None)  # noqa: SLF001 - it has no public name
        self._sentinels = ours.sentinels
        return ours


def of_pool(pool: Any, *, is_async: bool) -> Origin:
    """Return how a client with this pool connects."""
    manager = getattr(pool, "sentinel_manager", None)
    return Origin(
        is_async=is_async,
        connection_class=pool.connection_class,
        settings=_settings_of(pool.connection_kwargs),
        sentinel=manager,
        service=getattr(pool, "service_name", ""),
        is_master=getattr(pool, "is_master", True),
        check_connection=getattr(pool, "check_connection", False),
    )


def _settings_of(found: Mapping[str, Any]) -> dict[str, Any]:
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


def _listed(addresses: Any) -> str:
    return ",".join(f"{host}:{port}" for host, port in addresses)
