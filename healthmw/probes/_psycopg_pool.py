"""A probe of the room in the app's psycopg pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from healthmw._pool import PoolRoom
from healthmw.exceptions import MissingExtraError, ProbeFailedError

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

    from healthmw._probe import Outcome


class PsycopgPoolProbe:
    """See whether the app's psycopg `pool` has room; none of its connections is taken for that.

    The run is `Degraded` once `degraded_at` (a share, 0.9 unless told) of the pool's `max_size` is
    in use; a connection that the pool is about to open counts as in use. Nothing is asked of the
    database: a pass proves that, at this moment, the pool has a connection to give, or may open
    one. Put a `PsycopgProbe(pool)` beside it. A `NullConnectionPool` without a `max_size` always
    passes.

    Measures `pool_size` (connections that are open, or about to be), `pool_in_use`, `pool_waiting`
    (how many wait for one) and `pool_limit`, of this process alone. Raises `ProbeFailedError` where
    the pool is closed or not open yet.
    """

    is_async = True

    def __init__(
        self,
        pool: ConnectionPool[Any] | AsyncConnectionPool[Any],
        *,
        degraded_at: float = 0.9,
    ) -> None:
        try:
            from psycopg_pool import AsyncConnectionPool, ConnectionPool
        except ImportError as exc:
            raise MissingExtraError("PsycopgPoolProbe", extra="psycopg") from exc
        if not isinstance(pool, ConnectionPool | AsyncConnectionPool):
            raise TypeError(
                "pool must be a psycopg_pool.ConnectionPool or AsyncConnectionPool,"
                f" not {type(pool).__name__}"
            )
        self._pool = pool
        self._room = PoolRoom(degraded_at)

    def __repr__(self) -> str:
        return f"<PsycopgPoolProbe {self._pool.name}>"

    async def __call__(self) -> Outcome:
        """Look once."""
        if self._pool.closed:
            raise ProbeFailedError("the app's pool is closed")
        found = self._pool.get_stats()
        return self._room.judge(
            {
                "pool_size": found["pool_size"],
                "pool_in_use": found["pool_size"] - found["pool_available"],
                "pool_waiting": found["requests_waiting"],
                "pool_limit": found["pool_max"],
            }
        )
