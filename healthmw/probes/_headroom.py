"""A probe of whether the connections of a deploy will fit on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw.probes._headroom_forecast import Demand, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import redis
    import redis.asyncio
    from sqlalchemy import Connection, Engine, Pool
    from sqlalchemy.ext.asyncio import AsyncEngine

    from healthmw._probe import Outcome
    from healthmw.probes._headroom_forecast import Limit
    from healthmw.probes._headroom_redis import RedisErrand
    from healthmw.probes._sqlalchemy_once import Errand

_REDIS_SCHEMES = ("redis", "rediss", "unix")


class HeadroomProbe:
    """Forecast whether two generations of the app fit under a server's connection limits.

    While a deploy switches, the old release holds its connections and the new one opens its own. A
    pass proves that the peak of that stays below every limit that holds for this login, as long as
    the numbers given are true and others hold what they hold now::

        demand   = generations x instances x processes x (per_process + beside_pool)
        others   = in use now - this app's own, now
        forecast = max(in use now, others + demand + reserve)

    Fails where the forecast is above a limit, in words that name the limit, the numbers and what to
    change; that is before the server says "too many clients". It is `Degraded` where fewer than
    `spare` would be left.

    `target` is the app's own SQLAlchemy `Engine` or `AsyncEngine` (PostgreSQL, MySQL, MariaDB), its
    `redis.Redis` or `redis.asyncio.Redis`, or a URL of one of these.

    - `processes`: the worker processes of one instance (gunicorn's `--workers`). `instances`: the
      dynos, pods or machines, the most that a scaler may start.
    - `per_process`: what one process opens at most. Left out, it is what the engine's pool allows
      (`pool_size` + `max_overflow`) or the client's (`max_connections`); without such a pool it
      must be given. A process with fewer threads than that never opens so many.
    - `beside_pool`: what each process holds besides: 1 for the connection of a healthmw probe.
    - `generations`: 2, or 1 where the old release ends before the new one begins.
    - `reserve`: what others may open later: a worker that is asleep, a shell, a migration.
    - `application_name`: PostgreSQL only, see below. `timeout`: seconds, for all of a run.

    Limits: PostgreSQL's `max_connections` less what is reserved, and the `CONNECTION LIMIT` of role
    and database; `max_connections` and the account's `max_user_connections`; Redis' `maxclients`.

    This app's own are the connections that look like the probe's, which is opened as the app opens
    its own: same role, database and `application_name` (PostgreSQL), or names like the pattern
    `application_name` ("web-%"), if it is given; same user and database (MySQL, MariaDB); same
    user, name and database (Redis). What else logs in just so, such as background workers, can't be
    told apart: have them say another name, or count them in `reserve`.

    Whoever shrinks a pool has a larger old release for one deploy: give the larger number then. It
    knows nothing of a pooler such as PgBouncer in between, whose limits are others.

    One connection of the probe's own is open during a run, and none between runs. A sync engine or
    client is asked in a thread, also on trio; an async one, or a URL of Redis, needs asyncio.
    Measures, for the limit that binds, `binding_limit`, `limit`, `in_use`, `in_use_by_others`,
    `demand`, `forecast` and `headroom`; `server_headroom` and the like for each limit; and
    `latency_seconds`. Raises `ProbeFailedError`, the driver's own exceptions, and `ValueError` at
    construction.

    It belongs in the group that admits a deploy and in no other, for an app that runs well isn't
    unready because a deploy would not fit: `health.add("headroom", ..., groups=["release"])`.
    """

    def __init__(
        self,
        target: Engine | AsyncEngine | redis.Redis | redis.asyncio.Redis | str,
        *,
        processes: int,
        instances: int = 1,
        per_process: int | None = None,
        beside_pool: int = 1,
        generations: int = 2,
        reserve: int = 0,
        spare: int = 0,
        application_name: str | None = None,
        timeout: float = 2.0,
    ) -> None:
        self._errand: Errand | RedisErrand
        if _is_redis(target):
            from healthmw.probes._headroom_redis import RedisErrand

            if application_name is not None:
                raise ValueError("application_name= is for PostgreSQL only")
            self._errand = RedisErrand(target, self._judge, timeout=timeout)  # type: ignore[arg-type] # as _is_redis says
            found = self._errand.pool_limit
        else:
            from healthmw.probes._headroom_sql import reader
            from healthmw.probes._sqlalchemy_once import Errand

            self._errand = Errand("HeadroomProbe", target, self._read, timeout=timeout)  # type: ignore[arg-type] # as _is_redis says
            self._limits = reader(self._errand.app.dialect.name, application_name)
            found = _pool_limit(self._errand.app.pool)
        per_process = found if per_process is None else per_process
        if per_process is None:
            raise ValueError("per_process must be given: no pool with a limit says how many")
        self._demand = Demand(
            processes=processes,
            per_process=per_process,
            instances=instances,
            generations=generations,
            beside_pool=beside_pool,
            reserve=reserve,
            spare=spare,
        )
        self.is_async: bool = self._errand.is_async

    def __repr__(self) -> str:
        return f"<HeadroomProbe {self._errand}, {self._demand.total} connections>"

    def __call__(self) -> Outcome | Awaitable[Outcome]:
        """Forecast once: at once for a sync engine or client, else by a coroutine."""
        return self._errand.run()

    async def aclose(self) -> None:
        """Leave no connection open."""
        await self._errand.aclose()

    def _read(self, connection: Connection) -> Outcome:
        return self._judge(self._limits(connection))

    def _judge(self, limits: list[Limit]) -> Outcome:
        return judge(limits, self._demand)


def _is_redis(target: object) -> bool:
    if isinstance(target, str):
        return target.partition("://")[0].partition("+")[0].lower() in _REDIS_SCHEMES
    return any(kind.__module__.partition(".")[0] == "redis" for kind in type(target).__mro__)


def _pool_limit(pool: Pool) -> int | None:
    """Return how many connections a pool opens at most, where it has a limit."""
    from sqlalchemy.pool import QueuePool

    if not isinstance(pool, QueuePool):
        return None
    overflow = pool._max_overflow  # noqa: SLF001 - SQLAlchemy shows it nowhere else
    return pool.size() + overflow if overflow >= 0 and pool.size() > 0 else None
