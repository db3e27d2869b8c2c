"""A probe of MySQL or MariaDB by PyMySQL."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from healthmw._driver import check_timeout, shut_down_after, with_latency
from healthmw._kept import KeptConnection
from healthmw._options import WrongTypeError
from healthmw._sockets import connect_pymysql
from healthmw._sql import SIGN_OF_LIFE, Wishes, mysql_options, show_mysql, talk
from healthmw.exceptions import MissingExtraError

if TYPE_CHECKING:
    import pymysql

    from healthmw._probe import Outcome
    from healthmw._sql import Rows, Seen


class PyMySQLProbe:
    """Run `SELECT 1` on MySQL or MariaDB, over one connection that is kept between runs.

    `target` is a URL (`mysql://user:password@host:3306/name`, also `mariadb://`; options `charset`,
    `ssl_ca` and `unix_socket`), or the arguments that the app gives to `pymysql.connect`, as a
    mapping. The connection is the probe's own and in autocommit. Where it died, as by a restart of
    the server, it is replaced within the run.

    A pass proves a round trip: the server accepted the login and answered a query in time.

    - `writable=True`: the run fails where `read_only`, `super_read_only`, `innodb_read_only` or the
      session's `transaction_read_only` is on, whatever privileges the user has. A pass proves the
      server's role, and nothing of its disk.
    - `max_replica_lag` (seconds): a replica that is further behind its primary, by the server's own
      count, or whose replication does not run, is `Degraded`. For a server that replicates from
      nowhere it has no meaning. The user needs the privilege `REPLICA MONITOR` (MariaDB) or
      `REPLICATION CLIENT` (MySQL, from 8.0.22 on).
    - `timeout`: seconds for all of it but a name's resolution, which Python can't bound; the
      check's own timeout counts where it is shorter.

    Asked in a thread, on asyncio and trio. Measures `latency_seconds` and, of a replica,
    `replica_lag_seconds`. Raises PyMySQL's own exceptions, `OSError` or `ProbeFailedError`.
    """

    is_async = False

    def __init__(
        self,
        target: str | Mapping[str, Any],
        *,
        writable: bool = False,
        max_replica_lag: float | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            import pymysql.cursors
        except ImportError as exc:
            raise MissingExtraError("PyMySQLProbe", extra="pymysql") from exc
        self._wishes = Wishes(writable=writable, max_replica_lag=max_replica_lag)
        if not isinstance(target, str | Mapping):
            raise WrongTypeError(
                f"target must be a URL or a mapping of arguments, not {type(target).__name__}"
            )
        options = mysql_options(target) if isinstance(target, str) else dict(target)
        self._options = options | {
            "autocommit": True,
            "cursorclass": pymysql.cursors.DictCursor,
        }
        self._kept: KeptConnection[pymysql.Connection[Any]]
        self._kept = KeptConnection(
            connect=self._connect,
            close=lambda connection: connection.close(),
            timeout=check_timeout(timeout),
        )

    def __repr__(self) -> str:
        return f"<PyMySQLProbe {show_mysql(self._options)}>"

    def __call__(self) -> Outcome:
        """Ask once."""
        started = time.perf_counter()
        seen = self._kept.run(self._ask)
        return with_latency(seen, time.perf_counter() - started)

    async def aclose(self) -> None:
        """Close the probe's connection; the next run opens another."""
        self._kept.close()

    def _ask(self, connection: pymysql.Connection[Any], seconds: float) -> Seen:
        def rows(statement: str) -> Rows:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                found: Rows = cursor.fetchall()
                return found

        sock: Any = connection._sock  # type: ignore[attr-defined] # noqa: SLF001 - shown nowhere else
        with shut_down_after(seconds) as watch:
            watch(sock.fileno())
            rows(SIGN_OF_LIFE)
            return talk(self._wishes.examine("mysql"), rows)

    def _connect(self, seconds: float) -> pymysql.Connection[Any]:
        import pymysql

        # PyMySQL's limits count anew with each byte, so it gets a socket that can be shut down.
        with shut_down_after(seconds) as watch:
            connection: pymysql.Connection[Any]
            connection = connect_pymysql(pymysql.connect, self._options, seconds, watch)
        return connection
