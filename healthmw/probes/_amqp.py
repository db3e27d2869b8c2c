"""A probe of RabbitMQ, or of what else speaks AMQP 0-9-1 (LavinMQ, Qpid)."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from healthmw._addresses import show_address
from healthmw._bounds import not_negative
from healthmw._driver import check_timeout
from healthmw._held import PerProcess
from healthmw._probe import Degraded
from healthmw.exceptions import MissingExtraError, ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    import pika
    from pika.connection import Parameters

    from healthmw._pika import OwnConnection
    from healthmw._probe import Outcome


class AMQPProbe:
    """Open a channel on RabbitMQ, over one connection that is kept between runs.

    A pass proves that the broker accepted the login and the virtual host, and opened a channel just
    now. It does not prove that messages can be published: a broker short of memory or disk space
    takes none, and answers this.

    `target` is a URL (`amqp://user:password@host:5672/vhost`, `amqps://...`; the virtual host `/`
    is written `%2F` or left out) or the app's own `pika.ConnectionParameters`. The connection is
    the probe's own, whatever client the app uses (aio-pika, kombu, ...).

    - `queue`: it must exist. It is looked at, never created.
    - `min_consumers`: so many consumers must be on it, or the run fails.
    - `max_depth`: with more messages than that ready in it, the run is `Degraded`.
    - `timeout`: seconds for all of it: connecting, TLS, login, the answers. The check's own timeout
      counts where it is shorter.

    It runs in a thread, on asyncio and trio. Measures `latency_seconds` and, of a queue,
    `messages` and `consumers`. Raises `ProbeFailedError`.
    """

    is_async = False

    def __init__(
        self,
        target: str | pika.ConnectionParameters,
        *,
        queue: str | None = None,
        min_consumers: int = 0,
        max_depth: int | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            from pika.connection import Parameters
        except ImportError as exc:
            raise MissingExtraError("AMQPProbe", extra="amqp") from exc
        parameters = _from_url(target) if isinstance(target, str) else target
        if not isinstance(parameters, Parameters):
            raise TypeError(
                f"target must be a URL or pika's parameters, not {type(target).__name__}"
            )
        if queue == "":
            raise ValueError("queue must be a queue's name, not ''")
        if queue is None and (min_consumers or max_depth is not None):
            raise ValueError("min_consumers and max_depth are of a queue: name it by queue=")
        not_negative(min_consumers=min_consumers, max_depth=max_depth)
        self._queue = queue
        self._min_consumers = min_consumers
        self._max_depth = max_depth
        self._timeout = check_timeout(timeout)
        self._parameters = parameters
        self._own = PerProcess(self._connection)

    def __repr__(self) -> str:
        found = self._parameters
        queue = "" if self._queue is None else f" queue={self._queue!r}"
        return f"<AMQPProbe {show_address(found.host, found.port)}/{found.virtual_host}{queue}>"

    def __call__(self) -> Outcome:
        """Ask once."""
        started = time.perf_counter()
        queues = () if self._queue is None else (self._queue,)
        try:
            answer = self._own.get().ask(queues)
        except TimeoutError as exc:
            raise ProbeTimeoutError(f"no answer within {self._timeout:g} s") from exc
        latency = time.perf_counter() - started
        if not answer:
            return {"latency_seconds": latency}
        messages, consumers = answer[0]
        if consumers < self._min_consumers:
            raise ProbeFailedError(
                f"{consumers} consumer(s) on {self._queue!r}, expected {self._min_consumers}"
            )
        found = {"latency_seconds": latency, "messages": messages, "consumers": consumers}
        if self._max_depth is not None and messages > self._max_depth:
            detail = f"{messages} messages in {self._queue!r}, more than {self._max_depth}"
            return Degraded(detail, found)
        return found

    async def aclose(self) -> None:
        """Close the probe's connection; the next run opens another."""
        own = self._own.pop()
        if own is not None:
            own.retire()

    def _connection(self) -> OwnConnection:
        from healthmw._pika import OwnConnection

        return OwnConnection(self._parameters, timeout=self._timeout)


def _from_url(url: str) -> Parameters:
    import pika

    if url.startswith(("amqp://", "amqps://")):
        with suppress(TypeError, ValueError):
            return pika.URLParameters(url)
    # Without pika's own words: they may quote the part that it took for the port.
    raise ValueError(
        "target must be a URL like amqp://user:password@host:5672/vhost or amqps://..."
    )
