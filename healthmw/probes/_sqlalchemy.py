"""A probe of a SQL database, through the app's SQLAlchemy engine."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import anyio

from healthmw._driver import check_timeout, require_asyncio
from healthmw._held import PerLoop, PerProcess
from healthmw._pool import PoolRoom, sqlalchemy_numbers
from healthmw._probe import Degraded
from healthmw._sql import Wishes, talk
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes._engine import show_engine, sync_engine
from healthmw.probes._sqlite import check_file, is_in_memory, sqlite_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Engine, Executable, Pool
    from sqlalchemy.ext.asyncio import AsyncEngine

    from healthmw._probe import Outcome
    from healthmw._sql import Rows, Seen
    from healthmw.probes._sqlalchemy_own import OwnConnection

# Seconds between two looks at a full pool. Its own waiting has a limit of its own, 30 s by default,
# which can't be set from outside.
_POOL_POLL = 0.01
_WITH_REPLICAS = ("postgresql", "mysql", "mariadb")
_CLOSE_LIMIT = 1.0  # seconds to say goodbye to the server


class SQLAlchemyProbe:
    """Run a short query on the database behind `engine`, an `Engine` or an `AsyncEngine`.

    A pass proves a round trip: the server accepted the login and answered a query in time.

    - `connection="own"` (default): one connection that the probe keeps for itself, opened as the
      engine opens its own (its creator, arguments and events), in autocommit, so that no
      transaction is open between runs. A busy pool is thus no dead database: when all of the app's
      connections are in use, the run is `Degraded`. A connection that died, as by a restart of the
      server, is replaced within the run; one that works after `pool_recycle`, or with a `NullPool`
      after a minute.
    - `connection="pool"`: one from the app's pool, for the time of the query. When none becomes
      free in time, the run fails. With an `AsyncEngine`, only for the loop that the app uses it on.
    - `query`: a text or an SQLAlchemy statement instead of `SELECT 1`. Let it be light: one that is
      cut off may run on at the server.
    - `writable=True`: the run fails on a server that takes no writes: in PostgreSQL a standby, or
      where transactions are read-only; in MySQL and MariaDB where `read_only`, `super_read_only`,
      `innodb_read_only` or the session's `transaction_read_only` is on. A pass proves the server's
      role, and nothing of its disk.
    - `max_replica_lag` (seconds): a replica that is further behind its primary, or (MySQL, MariaDB)
      whose replication does not run, is `Degraded`; `PsycopgProbe` and `PyMySQLProbe` say how that
      is found out, and what privilege it takes.
    - `timeout`: seconds for all of it; the check's own timeout counts where it is shorter. A thread
      that waits for a server that hangs is freed: a wait for an answer by shutting the connection
      down, connecting by the driver's own limit, which is in whole seconds and to which psycopg
      adds up to two (psycopg, psycopg2, pg8000, PyMySQL and mysqlclient; where a `creator` or a
      `do_connect` listener of the app's makes the connection, by what it set).

    SQLite: an in-memory database is looked at through the app's pool, as it is nowhere else. A file
    is opened anew for each run, and its table of contents read, so that a file that is missing,
    empty, replaced or not a database is noticed; no file is created.

    A sync engine is asked in a thread, on asyncio and trio; an `AsyncEngine` needs asyncio, here as
    elsewhere. Measures `latency_seconds`, of a pool with a limit `pool_size`, `pool_in_use`,
    `pool_overflow` and `pool_limit`, and of a replica `replica_lag_seconds`. Raises
    `ProbeFailedError` with the driver's words, or the driver's own exceptions.
    """

    def __init__(
        self,
        engine: Engine | AsyncEngine,
        *,
        connection: Literal["own", "pool"] = "own",
        query: str | Executable | None = None,
        writable: bool = False,
        max_replica_lag: float | None = None,
        timeout: float = 2.0,
    ) -> None:
        if connection not in {"own", "pool"}:
            raise ValueError(f"connection must be 'own' or 'pool', not {connection!r}")
        self.is_async: bool
        app, self.is_async = sync_engine("SQLAlchemyProbe", engine)
        self._app = app
        self._wishes = Wishes(writable=writable, max_replica_lag=max_replica_lag)
        if self._wishes and app.dialect.name not in _WITH_REPLICAS:
            raise ValueError(
                "writable and max_replica_lag are for PostgreSQL, MySQL and MariaDB,"
                f" not for {app.dialect.name}"
            )
        self._timeout = check_timeout(timeout)
        import sqlalchemy as sa

        self._file = sqlite_file(app)
        self._shared = connection == "pool" or is_in_memory(app)
        if query is None:
            query = sa.select(1) if self._file is None else "SELECT count(*) FROM sqlite_master"
        self._query = sa.text(query) if isinstance(query, str) else query
        self._sync = PerProcess(self._make_own, lambda own: own.leave())
        self._async = PerLoop(self._make_own, _close_async)

    def __repr__(self) -> str:
        return f"<SQLAlchemyProbe {show_engine(self._app)}>"

    def __call__(self) -> Outcome | Awaitable[Outcome]:
        """Ask once: at once for an `Engine`, else by a coroutine."""
        return self._run_async() if self.is_async else self._run_sync()

    async def aclose(self) -> None:
        """Close the probe's own connection; the next run opens another."""
        own = self._sync.pop()
        if own is not None:
            own.retire()
        if self.is_async:
            await self._async.aclose()

    def _make_own(self) -> OwnConnection:
        from healthmw.probes._sqlalchemy_own import OwnConnection

        once = self._file is not None  # a file that is kept open isn't seen to be replaced
        return OwnConnection(self._app, timeout=self._timeout, once=once)

    def _run_sync(self) -> Outcome:
        from healthmw.probes._sqlalchemy_own import connect_in_pool

        started = time.monotonic()
        until = started + self._timeout
        try:
            if self._shared:
                self._wait_for_room(until)
                seen = self._ask(partial(connect_in_pool, self._app, until), until)
            else:
                own = self._sync.get()
                with own.held(self._timeout):
                    seen = self._ask(partial(own.use, until), until, kept=own.is_open)
        except TimeoutError as exc:
            raise self._late() from exc
        return self._outcome(time.monotonic() - started, seen)

    def _wait_for_room(self, until: float) -> None:
        while _is_full(self._app.pool):
            if time.monotonic() >= until:
                raise TimeoutError
            time.sleep(_POOL_POLL)

    async def _run_async(self) -> Outcome:
        require_asyncio("SQLAlchemy's AsyncEngine", instead="pass a sync Engine on trio")
        started = time.monotonic()
        try:
            with anyio.fail_after(self._timeout):
                while self._shared and _is_full(self._app.pool):  # noqa: ASYNC110 - no event tells
                    await anyio.sleep(_POOL_POLL)
                # aiosqlite can't be cancelled: its thread may end with a close unanswered, and the
                # loop then waits for that for ever. It ends by itself, by SQLite's own timeout.
                own = await self._async.get()
                work = partial(self._ask_async, own, started + self._timeout)
                is_aiosqlite = self._app.dialect.driver == "aiosqlite"
                seen = await (own.undisturbed.run(work) if is_aiosqlite else work())
        except TimeoutError as exc:
            raise self._late() from exc
        return self._outcome(time.monotonic() - started, seen)

    async def _ask_async(self, own: OwnConnection, until: float) -> Seen:
        from sqlalchemy.util import greenlet_spawn

        if self._shared:
            return await greenlet_spawn(self._ask, self._app.connect, until)
        async with own.async_lock:
            return await greenlet_spawn(self._ask, partial(own.use, until), until, kept=own.is_open)

    def _ask(
        self,
        connect: Callable[[], AbstractContextManager[Connection]],
        until: float,
        *,
        kept: bool = False,
    ) -> Seen:
        """Run the query, and once more where the connection may have died since the last run."""
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError

        from healthmw.probes._sqlalchemy_own import plain

        if self._file is not None:
            check_file(self._file)
        again = False
        while True:
            try:
                with connect() as connection:
                    return self._query_on(connection, until)
            except (ProbeFailedError, TimeoutError):
                raise
            except PoolTimeoutError as exc:
                raise ProbeFailedError("the app's pool gave no connection in its time") from exc
            except Exception as exc:
                # Not every driver's every error says that the connection is gone, so one that was
                # kept gets the benefit of the doubt.
                died = kept or getattr(exc, "connection_invalidated", False)
                if again or not died or time.monotonic() >= until:
                    if isinstance(exc, DBAPIError):
                        raise plain(exc, self._app.url) from exc
                    raise
                again = True

    def _query_on(self, connection: Connection, until: float) -> Seen:
        from healthmw.probes._sqlalchemy_own import within

        left = max(0.0, until - time.monotonic())

        def rows(statement: str) -> Rows:
            result = connection.exec_driver_sql(statement)
            return [dict(row) for row in result.mappings()]

        with nullcontext() if self.is_async else within(left, connection):
            result = connection.execute(self._query, execution_options=self._tenant())
            if result.returns_rows:
                result.first()
            return talk(self._wishes.examine(self._app.dialect.name), rows)

    def _tenant(self) -> dict[str, Any]:
        """Return which schemas the app's engine puts in place of those that a statement names."""
        schemas = self._app.get_execution_options().get("schema_translate_map")
        return {"schema_translate_map": schemas} if schemas else {}

    def _outcome(self, latency: float, seen: Seen) -> Outcome:
        degraded = [seen.detail] if isinstance(seen, Degraded) else []
        measured = seen.measurements if isinstance(seen, Degraded) else seen
        numbers = sqlalchemy_numbers(self._app.pool)
        room = PoolRoom(1.0).judge(numbers)
        if isinstance(room, Degraded) and not self._shared:
            degraded.append(room.detail)
        found = {"latency_seconds": latency, **numbers, **measured}
        return Degraded("; ".join(degraded), found) if degraded else found

    def _late(self) -> ProbeTimeoutError:
        if self._shared and _is_full(self._app.pool):
            limit = sqlalchemy_numbers(self._app.pool)["pool_limit"]
            return ProbeTimeoutError(
                f"no connection of the app's pool became free within {self._timeout:g} s:"
                f" all {limit} are in use"
            )
        return ProbeTimeoutError(f"no answer within {self._timeout:g} s")


async def _close_async(own: OwnConnection) -> None:
    from sqlalchemy.util import greenlet_spawn

    own.retired = True
    with anyio.move_on_after(_CLOSE_LIMIT, shield=True):
        async with own.async_lock:
            await greenlet_spawn(own.retire)


def _is_full(pool: Pool) -> bool:
    numbers = sqlalchemy_numbers(pool)
    return bool(numbers) and numbers["pool_in_use"] >= numbers["pool_limit"]
