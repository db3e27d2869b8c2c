"""A probe of MySQL or MariaDB by asyncmy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from healthmw._addresses import look_up
from healthmw._driver import check_timeout, require_asyncio, with_latency
from healthmw._kept import AsyncKeptConnection
from healthmw._options import WrongTypeError
from healthmw._sql import SIGN_OF_LIFE, Wishes, mysql_options, show_mysql, talk_async
from healthmw.exceptions import MissingExtraError

if TYPE_CHECKING:
    from asyncmy import Connection
    from asyncmy.pool import Pool

    from healthmw._probe import Outcome
    from healthmw._sql import Rows, Seen


class AsyncmyProbe:
    """Run `SELECT 1` on MySQL or MariaDB, over one connection that is kept between runs.

    `target` is the app's own `asyncmy.Pool`, a URL (`mysql://user:password@host:3306/name`, also
    `mariadb://`; options `charset`, `ssl_ca` and `unix_socket`), or the arguments that the app
    gives to `asyncmy.connect`, as a mapping. The connection is the probe's own, beside the pool,
    opened with the pool's arguments and in autocommit. Where it died, as by a restart of the
    server, it is replaced within the run.

    A pass proves a round trip: the server accepted the login and answered a query in time.

    - `writable=True`: the run fails where `read_only`, `super_read_only`, `innodb_read_only` or the
      session's `transaction_read_only` is on, whatever privileges the user has. A pass proves the
      server's role, and nothing of its disk.
    - `max_replica_lag` (seconds): a replica that is further behind its primary, by the server's own
      count, or whose replication does not run, is `Degraded`. For a server that replicates from
      nowhere it has no meaning. The user needs the privilege `REPLICA MONITOR` (MariaDB) or
      `REPLICATION CLIENT` (MySQL, from 8.0.22 on).
    - `timeout`: seconds for all of it; the check's own timeout counts where it is shorter.

    Needs asyncio, because asyncmy does. Measures `latency_seconds` and, of a replica,
    `replica_lag_seconds`. Raises asyncmy's own exceptions, `OSError` or `ProbeFailedError`.
    """

    is_async = True

    def __init__(
        self,
        target: str | Mapping[str, Any] | Pool,
        *,
        writable: bool = False,
        max_replica_lag: float | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            import asyncmy.pool
        except ImportError as exc:
            raise MissingExtraError("AsyncmyProbe", extra="asyncmy") from exc
        self._wishes = Wishes(writable=writable, max_replica_lag=max_replica_lag)
        found: Any = target
        if isinstance(target, asyncmy.pool.Pool):
            found = target._conn_kwargs  # type: ignore[attr-defined] # noqa: SLF001 - shown nowhere else
        if not isinstance(found, str | Mapping):
            raise WrongTypeError(
                "target must be an asyncmy.Pool, a URL or a mapping of arguments, not"
                f" {type(target).__name__}"
            )
        self._options = mysql_options(found) if isinstance(found, str) else dict(found)
        self._kept: AsyncKeptConnection[Connection]
        self._kept = AsyncKeptConnection(
            connect=self._connect,
            close=lambda connection: connection.ensure_closed(),
            drop=lambda connection: connection.close(),
            timeout=check_timeout(timeout),
        )

    def __repr__(self) -> str:
        return f"<AsyncmyProbe {show_mysql(self._options)}>"

    async def __call__(self) -> Outcome:
        """Ask once."""
        require_asyncio("asyncmy", instead="use PyMySQLProbe on trio")
        started = time.perf_counter()
        seen = await self._kept.run(self._ask)
        return with_latency(seen, time.perf_counter() - started)

    async def aclose(self) -> None:
        """Close the probe's connection; the next run opens another."""
        await self._kept.aclose()

    async def _ask(self, connection: Connection) -> Seen:
        from asyncmy.cursors import DictCursor

        async def rows(statement: str) -> Rows:
            async with connection.cursor(DictCursor) as cursor:
                await cursor.execute(statement)
                found: Rows = await cursor.fetchall()
                return found

        await rows(SIGN_OF_LIFE)
        return await talk_async(self._wishes.examine("mysql"), rows)

    async def _connect(self) -> Connection:
        import asyncmy

        if not self._options.get("unix_socket"):
            await look_up(self._options.get("host"))
        return await asyncmy.connect(**self._options | {"autocommit": True})
