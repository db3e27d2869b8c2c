"""A probe of Dramatiq's workers and queues, on Redis or RabbitMQ."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from healthmw._bounds import not_negative
from healthmw._driver import check_timeout, names
from healthmw._held import PerProcess
from healthmw._probe import Degraded
from healthmw.exceptions import MissingExtraError, ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import dramatiq
    import redis

    from healthmw._model import Measurement
    from healthmw._probe import Outcome


class DramatiqProbe:
    """See that Dramatiq's workers are there and keep up, by what its broker knows of them.

    `broker` is the app's own, a `RedisBroker` or a `RabbitmqBroker`; the probe asks over one
    connection of its own, made the same way. Nothing is sent to the workers. What a pass proves:

    - On RabbitMQ: each queue exists and has consumers, one for each worker process. One that is
      frozen counts until RabbitMQ misses its heartbeats, up to three minutes.
    - On Redis: processes have used the broker in the last `max_heartbeat_age` seconds. Workers do
      so all the time; but whoever sends a message does so, too, and Redis can't tell them apart. So
      where the web app sends often give `max_age` as well: a message that nobody takes grows old.

    Options:

    - `queues`: a queue's name, or several.
    - `min_workers`: with fewer worker processes than that the run fails.
    - `max_heartbeat_age`: seconds, on Redis; 60 by default, as by Dramatiq's own
      `heartbeat_timeout`.
    - `max_depth`: with more messages than that waiting in a queue, the run is `Degraded`.
    - `max_age`: likewise when the message that is next was sent more than so many seconds ago; on
      Redis. One that was delayed, or is tried again, was sent as long ago as its first time.
    - `timeout`: seconds for all of it; the check's own timeout counts where it is shorter.

    Ages need the clocks of the machines to agree. It runs in a thread, on asyncio and trio.
    Measures `latency_seconds`, `workers`, `messages` and, on Redis, `oldest_message_seconds`.
    Raises `ProbeFailedError`.
    """

    is_async = False

    def __init__(
        self,
        broker: dramatiq.Broker,
        *,
        queues: str | Iterable[str] = "default",
        min_workers: int = 1,
        max_heartbeat_age: float = 60.0,
        max_depth: int | None = None,
        max_age: float | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            import dramatiq
        except ImportError as exc:
            raise MissingExtraError("DramatiqProbe", extra="dramatiq") from exc
        if not isinstance(broker, dramatiq.Broker):
            raise TypeError(f"broker must be a dramatiq.Broker, not {type(broker).__name__}")
        self._queues = names("queues", queues)
        not_negative(
            min_workers=min_workers,
            max_heartbeat_age=max_heartbeat_age,
            max_depth=max_depth,
            max_age=max_age,
        )
        self._min_workers = min_workers
        self._max_depth = max_depth
        self._max_age = max_age
        timeout = check_timeout(timeout)
        self._look: _Redis | _RabbitMQ
        if hasattr(broker, "namespace"):
            self._look = _Redis(broker, self._queues, max_heartbeat_age, timeout)
        elif not hasattr(broker, "parameters"):
            raise TypeError(
                f"broker must be a RedisBroker or a RabbitmqBroker, not {type(broker).__name__}"
            )
        elif max_age is not None:
            raise ValueError("max_age is for Redis: RabbitMQ does not show its messages")
        else:
            self._look = _RabbitMQ(broker, self._queues, timeout)

    def __repr__(self) -> str:
        return f"<DramatiqProbe {self._look.address} {', '.join(self._queues)}>"

    def __call__(self) -> Outcome:
        """Look once."""
        started = time.perf_counter()
        seen = self._look()
        found: dict[str, Measurement] = {
            "latency_seconds": time.perf_counter() - started,
            "workers": min(workers for workers, _, _ in seen),
            "messages": sum(depth for _, depth, _ in seen),
        }
        ages = [age for _, _, age in seen if age is not None]
        if ages:
            found["oldest_message_seconds"] = max(ages)
        amiss = []
        for name, (workers, depth, age) in zip(self._queues, seen, strict=True):
            if workers < self._min_workers:
                raise ProbeFailedError(
                    f"{workers} worker(s) on {name!r}, expected {self._min_workers}"
                )
            if self._max_depth is not None and depth > self._max_depth:
                amiss.append(f"{depth} messages in {name!r}, more than {self._max_depth}")
            if self._max_age is not None and (age or 0.0) > self._max_age:
                amiss.append(f"the next message in {name!r} was sent {age:.0f} s ago")
        return Degraded("; ".join(amiss), found) if amiss else found

    async def aclose(self) -> None:
        """Close the probe's connection; the next run opens another."""
        self._look.close()


class _Redis:
    """Returns the live processes, messages and age of the next one of each queue."""

    def __init__(
        self, broker: Any, queues: tuple[str, ...], max_heartbeat_age: float, timeout: float
    ) -> None:
        from healthmw._own_redis import OwnRedis

        self._queues = queues
        self._namespace = broker.namespace
        self._max_heartbeat_age = max_heartbeat_age
        self._sender = broker.broker_id
        self._own = OwnRedis(broker.client, timeout=timeout)
        self.address = self._own.address
        self.close = self._own.close

    def __call__(self) -> list[tuple[int, int, float | None]]:
        return self._own.run(self._read)

    def _read(self, client: redis.Redis) -> list[tuple[int, int, float | None]]:
        from dramatiq import Message

        now = time.time()
        heartbeats = f"{self._namespace}:__heartbeats__"
        first = client.pipeline(transaction=False)
        first.zrangebyscore(heartbeats, (now - self._max_heartbeat_age) * 1000, "+inf")
        for name in self._queues:
            key = f"{self._namespace}:{name}"
            first.llen(key)
            first.lindex(key, 0)
        alive, *answers = first.execute()
        workers = len({*alive} - {self._sender.encode()})  # what this process itself has sent
        second = client.pipeline(transaction=False)
        for name, waiting in zip(self._queues, answers[1::2], strict=True):
            second.hget(f"{self._namespace}:{name}.msgs", waiting or b"")
        return [
            (workers, depth, max(0.0, now - Message.decode(sent).message_timestamp / 1000))
            if sent
            else (workers, depth, 0.0)
            for depth, sent in zip(answers[0::2], second.execute(), strict=True)
        ]


class _RabbitMQ:
    """Returns the consumers and messages of each queue; of no age, for nobody may look inside."""

    def __init__(self, broker: Any, queues: tuple[str, ...], timeout: float) -> None:
        from healthmw._pika import OwnConnection

        given = broker.parameters
        servers = given if isinstance(given, list) else [given]
        self._queues = queues
        self._timeout = timeout
        self._own = PerProcess(lambda: OwnConnection(*servers, timeout=timeout))
        self.address = ", ".join(f"{one.host}:{one.port}/{one.virtual_host}" for one in servers)

    def __call__(self) -> list[tuple[int, int, float | None]]:
        try:
            answers = self._own.get().ask(self._queues)
        except TimeoutError as exc:
            raise ProbeTimeoutError(f"no answer within {self._timeout:g} s") from exc
        return [(consumers, messages, None) for messages, consumers in answers]

    def close(self) -> None:
        own = self._own.pop()
        if own is not None:
            own.retire()
