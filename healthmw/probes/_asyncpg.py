"""A probe of PostgreSQL by asyncpg, through the app's pool's settings or a DSN."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from healthmw._addresses import look_up_any
from healthmw._driver import check_timeout, require_asyncio, with_latency
from healthmw._kept import AsyncKeptConnection
from healthmw._sql import SIGN_OF_LIFE, Wishes, talk_async
from healthmw.exceptions import MissingExtraError

if TYPE_CHECKING:
    import asyncpg  # type: ignore[import-untyped] # it has no types

    from healthmw._probe import Outcome
    from healthmw._sql import Rows, Seen


class AsyncpgProbe:
    """Run `SELECT 1` on PostgreSQL, over one connection that is kept between runs.

    `target` is the app's own `asyncpg.Pool`, open or not, or a DSN (`postgresql://...`). The
    connection is the probe's own, beside the pool and opened as the pool opens its own: its
    arguments, classes and `init`. So a busy pool is no dead database. It caches no statements,
    which suits PgBouncer. Where it died, as by a restart of the server, it is replaced within the
    run.

    A pass proves a round trip: the server accepted the login and answered a query in time.

    - `writable=True`: the run fails on a standby, and where transactions are read-only. A pass
      proves the server's role, and nothing of its disk.
    - `max_replica_lag` (seconds): a standby that is further behind its primary is `Degraded`. One
      that has replayed all that it received is 0 behind; else it counts how old is what it replayed
      last. A primary that vanishes without a word is noticed after `wal_receiver_timeout`, 60 s.
    - `timeout`: seconds for all of it; the check's own timeout counts where it is shorter.

    Needs asyncio, because asyncpg does. Measures `latency_seconds` and, of a standby,
    `replica_lag_seconds`. Raises asyncpg's own exceptions, `OSError` or `ProbeFailedError`.
    """

    is_async = True

    def __init__(
        self,
        target: str | asyncpg.Pool,
        *,
        writable: bool = False,
        max_replica_lag: float | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            import asyncpg
        except ImportError as exc:
            raise MissingExtraError("AsyncpgProbe", extra="asyncpg") from exc
        self._wishes = Wishes(writable=writable, max_replica_lag=max_replica_lag)
        self._pool = None if isinstance(target, str) else target
        self._dsn = target if isinstance(target, str) else None
        if self._dsn is not None:
            _hosts(self._dsn)
        elif not isinstance(target, asyncpg.Pool):
            raise TypeError(f"target must be an asyncpg.Pool or a DSN, not {type(target).__name__}")
        self._kept: AsyncKeptConnection[asyncpg.Connection]
        self._kept = AsyncKeptConnection(
            connect=self._connect,
            close=lambda connection: connection.close(),
            drop=lambda connection: connection.terminate(),
            timeout=check_timeout(timeout),
        )

    def __repr__(self) -> str:
        return f"<AsyncpgProbe {', '.join(self._addresses()) or 'postgresql'}>"

    async def __call__(self) -> Outcome:
        """Ask once."""
        require_asyncio("asyncpg", instead="use PsycopgProbe with a ConnectionPool on trio")
        started = time.perf_counter()
        seen = await self._kept.run(self._ask)
        return with_latency(seen, time.perf_counter() - started)

    async def aclose(self) -> None:
        """Close the probe's connection; the next run opens another."""
        await self._kept.aclose()

    async def _ask(self, connection: asyncpg.Connection) -> Seen:
        async def rows(statement: str) -> Rows:
            found: Rows = await connection.fetch(statement)
            return found

        await rows(SIGN_OF_LIFE)
        return await talk_async(self._wishes.examine("postgresql"), rows)

    async def _connect(self) -> asyncpg.Connection:
        import asyncpg

        await look_up_any([address.rpartition(":")[0] for address in self._addresses()])
        if self._pool is None:
            return await asyncpg.connect(self._dsn, statement_cache_size=0)
        # asyncpg shows nowhere else how its pool connects.
        pool: Any = self._pool
        connection = await pool._connect(  # noqa: SLF001 - see above
            *pool._connect_args,  # noqa: SLF001 - see above
            loop=asyncio.get_running_loop(),
            connection_class=pool._connection_class,  # noqa: SLF001 - see above
            record_class=pool._record_class,  # noqa: SLF001 - see above
            **pool._connect_kwargs | {"statement_cache_size": 0},  # noqa: SLF001 - see above
        )
        try:
            if pool._init is not None:  # noqa: SLF001 - see above
                await pool._init(connection)  # noqa: SLF001 - see above
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _addresses(self) -> list[str]:
        """Return where the server may be, each as HOST:PORT."""
        if self._pool is None:
            return _hosts(self._dsn or "")
        (dsn,), options = self._pool._connect_args, self._pool._connect_kwargs  # noqa: SLF001 - see above
        hosts = options.get("host") or ()
        if not hosts and dsn:
            return _hosts(dsn)
        return [f"{host}:{options.get('port') or 5432}" for host in _several(hosts)]


def _several(hosts: Any) -> list[str]:
    return [hosts] if isinstance(hosts, str) else list(hosts)


def _hosts(dsn: str) -> list[str]:
    """Return the HOST:PORT of each server in a DSN; raise `ValueError` for a malformed one."""
    try:
        parts = urlsplit(dsn)
        known = parts.scheme in {"postgresql", "postgres"}
        found = [*map(_address, filter(None, parts.netloc.rpartition("@")[2].split(",")))]
    except ValueError:
        known = False
    if not known:
        # Without the words of what refused it: they may quote a part of the password.
        raise ValueError(
            "target must be a DSN like postgresql://user:password@host:5432/name; special"
            " characters in the password are percent-encoded"
        )
    return found


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if text.endswith("]") or not colon:
        host, port = text, "5432"
    return f"{unquote(host).strip('[]')}:{int(port)}"
