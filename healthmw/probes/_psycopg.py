"""A probe of PostgreSQL by psycopg, through the app's pool's settings or a connection string."""

from __future__ import annotations

import inspect
import math
import time
from typing import TYPE_CHECKING, Any

from healthmw._addresses import look_up_any
from healthmw._driver import (
    check_timeout,
    let_go_when_cancelled,
    require_asyncio,
    shut_down_after,
    with_latency,
)
from healthmw._kept import FOR_EACH_USE, AsyncKeptConnection, KeptConnection
from healthmw._sql import SIGN_OF_LIFE, Wishes, talk, talk_async
from healthmw.exceptions import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from psycopg import AsyncConnection, Connection
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

    from healthmw._probe import Outcome
    from healthmw._sql import Rows, Seen


class PsycopgProbe:
    """Run `SELECT 1` on PostgreSQL, over one connection that is kept between runs.

    `target` is the app's own `psycopg_pool.ConnectionPool` or `AsyncConnectionPool`, or a
    connection string (`postgresql://...`, `host=... dbname=...`). The connection is the probe's
    own, beside the pool and opened as the pool opens its own: its conninfo, arguments, class and
    `configure`. So a busy pool is no dead database; `PsycopgPoolProbe` looks at the pool. It is in
    autocommit and prepares nothing, which suits PgBouncer. Where it died, as by a restart of the
    server, it is replaced within the run; else after the pool's `max_lifetime`, or after a minute
    where that is a null pool.

    A pass proves a round trip: the server accepted the login and answered a query in time.

    - `writable=True`: the run fails on a standby, and where transactions are read-only. A pass
      proves the server's role, and nothing of its disk.
    - `max_replica_lag` (seconds): a standby that is further behind its primary is `Degraded`. One
      that has replayed all that it received is 0 behind; else it counts how old is what it replayed
      last. A primary that vanishes without a word is noticed after `wal_receiver_timeout`, 60 s.
    - `timeout`: seconds for all of it; the check's own timeout counts where it is shorter.

    psycopg bounds connecting in whole seconds, two at least, for each host. Where there are
    several, give a `timeout` of more than two seconds a host, or one that is silent leaves the next
    no time.

    A `ConnectionPool` is asked in a thread, on asyncio and trio, where nothing else bounds
    connecting. An `AsyncConnectionPool` or a string needs asyncio, because psycopg does. Measures
    `latency_seconds` and, of a standby, `replica_lag_seconds`. Raises psycopg's own exceptions, or
    `ProbeFailedError`.
    """

    def __init__(
        self,
        target: str | ConnectionPool[Any] | AsyncConnectionPool[Any],
        *,
        writable: bool = False,
        max_replica_lag: float | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            import psycopg
            from psycopg_pool import (
                AsyncConnectionPool,
                AsyncNullConnectionPool,
                ConnectionPool,
                NullConnectionPool,
            )
        except ImportError as exc:
            raise MissingExtraError("PsycopgProbe", extra="psycopg") from exc
        self._wishes = Wishes(writable=writable, max_replica_lag=max_replica_lag)
        self._timeout = check_timeout(timeout)
        self._pool: Any = None
        self._conninfo = ""
        if isinstance(target, str):
            _check_conninfo(target)
            self._conninfo = target
        elif isinstance(target, ConnectionPool | AsyncConnectionPool):
            self._pool = target
        else:
            raise TypeError(
                "target must be a psycopg_pool.ConnectionPool, an AsyncConnectionPool or a"
                f" connection string, not {type(target).__name__}"
            )
        self.is_async: bool = not isinstance(target, ConnectionPool)
        max_age = math.inf if isinstance(target, str) else target.max_lifetime
        if isinstance(target, NullConnectionPool | AsyncNullConnectionPool):
            max_age = FOR_EACH_USE
        self._sync = KeptConnection(
            connect=self._connect,
            close=psycopg.Connection.close,
            timeout=timeout,
            max_age=max_age,
        )
        self._async = AsyncKeptConnection(
            connect=self._connect_async,
            close=psycopg.AsyncConnection.close,
            drop=lambda connection: connection.pgconn.finish(),
            timeout=timeout,
            max_age=max_age,
        )

    def __repr__(self) -> str:
        if self._pool is not None:
            return f"<PsycopgProbe {self._pool.name}>"
        from psycopg.conninfo import conninfo_to_dict

        found = conninfo_to_dict(self._conninfo)
        address = f"{found.get('host', '')}:{found.get('port', 5432)}/{found.get('dbname', '')}"
        return f"<PsycopgProbe {address}>"

    def __call__(self) -> Outcome | Awaitable[Outcome]:
        """Ask once: at once for a `ConnectionPool`, else by a coroutine."""
        return self._run_async() if self.is_async else self._run_sync()

    async def aclose(self) -> None:
        """Close the probe's connection; the next run opens another."""
        self._sync.close()
        if self.is_async:
            await self._async.aclose()

    def _run_sync(self) -> Outcome:
        started = time.perf_counter()
        seen = self._sync.run(self._ask)
        return with_latency(seen, time.perf_counter() - started)

    async def _run_async(self) -> Outcome:
        require_asyncio("psycopg's AsyncConnection", instead="pass a ConnectionPool on trio")
        started = time.perf_counter()
        seen = await self._async.run(self._ask_async)
        return with_latency(seen, time.perf_counter() - started)

    def _ask(self, connection: Connection[Any], seconds: float) -> Seen:
        from psycopg import Cursor
        from psycopg.rows import dict_row

        def rows(statement: str) -> Rows:  # as bytes: psycopg's types want a str to be a literal
            with Cursor(connection, row_factory=dict_row) as cursor:
                return cursor.execute(statement.encode()).fetchall()

        with shut_down_after(seconds) as watch:
            watch(connection.fileno())
            rows(SIGN_OF_LIFE)
            return talk(self._wishes.examine("postgresql"), rows)

    async def _ask_async(self, connection: AsyncConnection[Any]) -> Seen:
        from psycopg import AsyncCursor
        from psycopg.rows import dict_row

        async def rows(statement: str) -> Rows:
            async with AsyncCursor(connection, row_factory=dict_row) as cursor:
                return await (await cursor.execute(statement.encode())).fetchall()

        await rows(SIGN_OF_LIFE)
        return await talk_async(self._wishes.examine("postgresql"), rows)

    def _connect(self, seconds: float) -> Connection[Any]:
        pool = self._pool
        conninfo = pool.conninfo() if callable(pool.conninfo) else pool.conninfo
        options = pool.kwargs() if callable(pool.kwargs) else pool.kwargs
        connection: Connection[Any] = pool.connection_class.connect(
            conninfo or "", **_own_options(conninfo or "", options or {}, seconds)
        )
        if (configure := pool._configure) is not None:  # noqa: SLF001 - shown nowhere else
            try:
                with shut_down_after(seconds) as watch:
                    watch(connection.fileno())
                    configure(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    async def _connect_async(self) -> AsyncConnection[Any]:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        pool = self._pool
        kind: Any = psycopg.AsyncConnection
        options: dict[str, Any]
        conninfo, options, configure = self._conninfo, {}, None
        if pool is not None:
            kind, configure = pool.connection_class, pool._configure  # noqa: SLF001 - shown nowhere else
            conninfo, options = await _called(pool.conninfo) or "", await _called(pool.kwargs) or {}
        options = _own_options(conninfo, options, self._timeout)
        found = conninfo_to_dict(conninfo) | options
        if not found.get("hostaddr"):
            await look_up_any(str(found.get("host") or "").split(","))
        connection: AsyncConnection[Any] = await kind.connect(conninfo, **options)
        let_go_when_cancelled(connection)
        try:
            if configure is not None:
                await configure(connection)
        except BaseException:
            connection.pgconn.finish()
            raise
        return connection


def _check_conninfo(conninfo: str) -> None:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        port = str(conninfo_to_dict(conninfo).get("port") or "")
        known = all(part.isdecimal() or not part for part in port.split(","))
    except ProgrammingError:
        known = False
    if not known:
        # Without libpq's own words: they may quote any part.
        raise ValueError(
            "target must be a connection string like postgresql://user:password@host:5432/name or"
            " 'host=... dbname=...'; special characters in a URL's password are percent-encoded"
        )


def _own_options(conninfo: str, options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the arguments of the app's connections, with those that the probe's own needs."""
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(conninfo) | options
    hosts = str(given.get("hostaddr") or given.get("host") or "").count(",") + 1
    # It is for each host: one that is silent must leave time for the next.
    limit = math.ceil(seconds) if hosts == 1 else max(2, int(seconds / hosts))
    found = given.get("connect_timeout")
    return options | {
        "autocommit": True,
        "prepare_threshold": None,
        "connect_timeout": min(limit, int(found)) if found and int(found) > 0 else limit,
    }


async def _called(setting: Any) -> Any:
    """Return a pool's setting, which may be a function or a coroutine function."""
    value = setting() if callable(setting) else setting
    return await value if inspect.isawaitable(value) else value
