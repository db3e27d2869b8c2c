"""A probe of RQ's workers and queues."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from healthmw._bounds import not_negative
from healthmw._driver import check_timeout, names
from healthmw._probe import Degraded
from healthmw.exceptions import MissingExtraError, ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

    from healthmw._model import Measurement
    from healthmw._probe import Outcome


class RQProbe:
    """See that RQ's workers are there and keep up, by what they leave in Redis.

    A pass proves that each of the queues has workers whose heartbeats are fresh. Nothing is sent to
    the workers. `connection` is the `redis.Redis` that the app gives to its queues; the probe asks
    over one connection of its own, made the same way.

    - `queues`: a queue's name, or several.
    - `min_workers`: so many workers must listen on each queue, or the run fails.
    - `max_heartbeat_age`: seconds after which a worker without a new heartbeat counts as gone. None
      waits until RQ itself takes it for gone, which is a minute more than the worker's TTL: eight
      minutes by default. An idle worker's heartbeats are 15 seconds less than its TTL apart, and
      a busy one's 30 seconds; so start workers as by `rq worker --worker-ttl 60`, and give 90.
    - `max_depth`: with more jobs than that waiting in a queue, the run is `Degraded`.
    - `max_job_age`: likewise when the job that is next has waited for longer than so many seconds.
    - `timeout`: seconds for all of it; the check's own timeout counts where it is shorter.

    Suspended workers (`rq suspend`) are `Degraded` too. Ages need the clocks of the machines to
    agree. It runs in a thread, on asyncio and trio. Measures `latency_seconds`, `workers`, and of
    the jobs `messages` and `oldest_message_seconds`, as the probes of other queues call them.
    Raises `ProbeFailedError`.
    """

    is_async = False

    def __init__(
        self,
        connection: redis.Redis,
        *,
        queues: str | Iterable[str] = "default",
        min_workers: int = 1,
        max_heartbeat_age: float | None = None,
        max_depth: int | None = None,
        max_job_age: float | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            import redis
            import rq  # noqa: F401 - to see whether it is there
        except ImportError as exc:
            raise MissingExtraError("RQProbe", extra="rq") from exc
        from healthmw._own_redis import OwnRedis

        if not isinstance(connection, redis.Redis):
            raise TypeError(f"connection must be a redis.Redis, not {type(connection).__name__}")
        self._queues = names("queues", queues)
        not_negative(
            min_workers=min_workers,
            max_heartbeat_age=max_heartbeat_age,
            max_depth=max_depth,
            max_job_age=max_job_age,
        )
        self._min_workers = min_workers
        self._max_heartbeat_age = max_heartbeat_age
        self._max_depth = max_depth
        self._max_job_age = max_job_age
        self._own = OwnRedis(connection, timeout=check_timeout(timeout))

    def __repr__(self) -> str:
        return f"<RQProbe {self._own.address} {', '.join(self._queues)}>"

    def __call__(self) -> Outcome:
        """Look once."""
        started = time.perf_counter()
        suspended, seen = self._own.run(self._read)
        found: dict[str, Measurement] = {"latency_seconds": time.perf_counter() - started}
        found["workers"] = len(set[bytes]().union(*(queue.workers for queue in seen)))
        found["messages"] = sum(queue.depth for queue in seen)
        found["oldest_message_seconds"] = max(queue.age for queue in seen)
        for queue in seen:
            if len(queue.workers) < self._min_workers:
                raise ProbeFailedError(
                    f"{len(queue.workers)} worker(s) on {queue.name!r}, expected"
                    f" {self._min_workers}"
                )
        amiss = ["the workers are suspended"] if suspended else []
        for queue in seen:
            if self._max_depth is not None and queue.depth > self._max_depth:
                amiss.append(f"{queue.depth} jobs in {queue.name!r}, more than {self._max_depth}")
            if self._max_job_age is not None and queue.age > self._max_job_age:
                amiss.append(f"a job has waited in {queue.name!r} for {queue.age:.0f} s")
        return Degraded("; ".join(amiss), found) if amiss else found

    async def aclose(self) -> None:
        """Close the probe's connection; the next run opens another."""
        self._own.close()

    def _read(self, client: redis.Redis) -> tuple[bool, list[_Seen]]:
        """Return whether the workers are suspended, and the queues, in two round trips."""
        from rq import Queue
        from rq.job import Job
        from rq.suspension import WORKERS_SUSPENDED
        from rq.worker_registration import WORKERS_BY_QUEUE_KEY

        first = client.pipeline(transaction=False)
        first.exists(WORKERS_SUSPENDED)
        for name in self._queues:
            key = Queue(name, connection=client).key
            first.smembers(WORKERS_BY_QUEUE_KEY % name)
            first.llen(key)
            first.lindex(key, 0)
        suspended, *answers = first.execute()
        second = client.pipeline(transaction=False)
        rows = list(zip(*[iter(answers)] * 3, strict=True))
        for workers, _, job in rows:
            for worker in workers:
                second.hget(worker, "last_heartbeat")
            second.hget(Job.key_for((job or b"").decode()), "enqueued_at")
        times = iter([_age(value) for value in second.execute()])
        seen = [
            _Seen(
                name,
                {worker for worker in workers if self._is_fresh(next(times))},
                depth,
                next(times) or 0.0,
            )
            for name, (workers, depth, _) in zip(self._queues, rows, strict=True)
        ]
        return bool(suspended), seen

    def _is_fresh(self, age: float | None) -> bool:
        return age is not None and not age > (self._max_heartbeat_age or float("inf"))


class _Seen:
    """One queue: its live workers' keys, its jobs, and the age of the next one in seconds."""

    def __init__(self, name: str, workers: set[bytes], depth: int, age: float) -> None:
        self.name = name
        self.workers = workers
        self.depth = depth
        self.age = age


def _age(written: Any) -> float | None:
    """Return how old a time is that RQ wrote; None where there is none: its key has expired."""
    if written is None:
        return None
    # Not by rq.utils.utcparse, whose times have no zone in RQ 2.0.
    then = datetime.fromisoformat(written.decode()).replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - then).total_seconds())
