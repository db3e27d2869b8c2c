"""A probe of the room in the app's SQLAlchemy pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw._pool import PoolRoom, sqlalchemy_numbers
from healthmw.probes._engine import show_engine, sync_engine

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from healthmw._probe import Outcome


class SQLAlchemyPoolProbe:
    """See whether the pool of the app's `engine` has room; none of its connections is taken.

    The run is `Degraded` once `degraded_at` (a share, 0.9 unless told) of what the pool may open,
    its size and its overflow, is in use. Nothing is asked of the database: a pass proves that, at
    this moment, the app can have a connection without waiting for one. A pool without a limit
    (`NullPool`, `max_overflow=-1`) always passes. `SQLAlchemyProbe` looks at the database itself,
    and says when the pool is full; this one warns before.

    Measures `pool_size`, `pool_in_use`, `pool_overflow` and `pool_limit`, of this process alone.
    """

    is_async = True

    def __init__(self, engine: Engine | AsyncEngine, *, degraded_at: float = 0.9) -> None:
        self._app, _ = sync_engine("SQLAlchemyPoolProbe", engine)
        self._room = PoolRoom(degraded_at)

    def __repr__(self) -> str:
        return f"<SQLAlchemyPoolProbe {show_engine(self._app)}>"

    async def __call__(self) -> Outcome:
        """Look once."""
        return self._room.judge(sqlalchemy_numbers(self._app.pool))
