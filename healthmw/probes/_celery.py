"""A probe of Celery's workers, and of the queue in front of them."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakSet

from healthmw._bounds import not_negative
from healthmw._driver import check_timeout, time_limit
from healthmw._kept import KeptConnection
from healthmw._options import count
from healthmw._probe import Degraded
from healthmw._redis_clients import bounded
from healthmw.exceptions import MissingExtraError, ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import celery

    from healthmw._model import Measurement
    from healthmw._probe import Outcome

_ANSWERING = 0.9  # share of the time in which workers may answer; the rest is for an orderly end
_LOOK = 0.05  # seconds after which a transport without a notion of time is asked to look up


class CeleryProbe:
    """Ask the workers of a Celery app for an answer to a ping, through the broker.

    A pass proves that so many workers have just answered: the broker passes messages on, and the
    workers' main processes are awake. It does not prove that their pools have room: for that give
    `queue` and `max_depth`.

    `app` is the Celery app. The probe has one connection to the broker of its own, made as the app
    makes its own, but without Celery's retries, which may go on for ever.

    - `min_workers`: so many workers must answer, or the run fails. It ends as soon as they have.
    - `workers`: names of workers (`"celery@host"`), all of which must answer, in place of that.
    - `queue`, `max_depth`: with more messages than that waiting in that queue, the run is
      `Degraded`. On RabbitMQ a queue that is not there fails; on Redis it is an empty one. Celery's
      messages do not say when they were sent, so there is no bound on their age.
    - `timeout`: seconds for all of it: connecting, login, the answers. The check's own timeout
      counts where it is shorter.

    Every worker hears each ping; with many workers ask seldom (`interval=` or `max_age=` of the
    check). A worker of the `solo` pool answers between tasks only. It runs in a thread, on asyncio
    and trio. Measures `latency_seconds`, `workers` (how many have answered) and `messages`. Raises
    `ProbeFailedError`.
    """

    is_async = False

    def __init__(
        self,
        app: celery.Celery,
        *,
        min_workers: int = 1,
        workers: Iterable[str] | None = None,
        queue: str | None = None,
        max_depth: int | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            import celery
        except ImportError as exc:
            raise MissingExtraError("CeleryProbe", extra="celery") from exc
        if not isinstance(app, celery.Celery):
            raise TypeError(f"app must be a celery.Celery, not {type(app).__name__}")
        if isinstance(workers, str):
            raise TypeError(f"workers must be a collection of names: write ({workers!r},)")
        names = None if workers is None else tuple(workers)
        if names == ():
            raise ValueError("workers must name at least one worker")
        count("min_workers", min_workers)
        not_negative(max_depth=max_depth)
        if (queue is None) != (max_depth is None):
            raise ValueError("queue and max_depth belong together")
        self._app = app
        self._names = names
        self._expected = min_workers if names is None else len(set(names))
        self._queue = queue
        self._max_depth = max_depth
        self._timeout = check_timeout(timeout)
        self._kept: KeptConnection[_Link] = KeptConnection(
            connect=lambda _: _Link(app, self._timeout),  # opens when it is asked
            close=lambda link: link.close(),
            timeout=self._timeout,
        )

    def __repr__(self) -> str:
        return f"<CeleryProbe {self._app.main or 'app'} workers={self._names or self._expected}>"

    def __call__(self) -> Outcome:
        """Ask once."""
        started = time.perf_counter()
        answered: set[str] = set()
        depth: list[int] = []
        sent = False

        def ask(link: _Link, seconds: float) -> None:
            nonlocal sent
            link.until = time.monotonic() + seconds - (1 - _ANSWERING) * self._timeout
            with time_limit(seconds, link.shut_down):
                if self._queue is not None:
                    depth[:] = [link.depth(self._queue)]
                try:
                    link.ping(self._names, self._expected, answered)
                finally:
                    sent = link.sent

        try:
            self._kept.run(ask)
        except ProbeTimeoutError:
            if not sent:
                raise
        except ProbeFailedError:
            raise
        except Exception as exc:  # of any of kombu's transports
            # What redis-py says of sentinels ends with all settings of all of them.
            words = str(exc).partition(" : <")[0]
            raise ProbeFailedError(f"{type(exc).__name__}: {words}") from exc
        latency = time.perf_counter() - started
        return self._judge(answered, depth, latency)

    def _judge(self, answered: set[str], depth: list[int], latency: float) -> Outcome:
        if len(answered) < self._expected:
            raise ProbeFailedError(
                f"{len(answered)} worker(s) answered within {self._timeout:g} s,"
                f" expected {self._missing(answered)}"
            )
        found: dict[str, Measurement] = {
            "latency_seconds": latency,
            "workers": len(answered),
        }
        if self._max_depth is not None:
            found["messages"] = depth[0]
            if depth[0] > self._max_depth:
                detail = f"{depth[0]} messages in {self._queue!r}, more than {self._max_depth}"
                return Degraded(detail, found)
        return found

    async def aclose(self) -> None:
        """Close the probe's connection; the next run opens another."""
        self._kept.close()

    def _missing(self, answered: set[str]) -> str:
        if self._names is None:
            return str(self._expected)
        return f"{', '.join(sorted({*self._names} - answered))} too"


class _UnansweredError(TimeoutError):
    """The ping was sent, and not enough workers have answered in time."""


class _Link:
    """One connection of kombu's, without its retries, that another thread can cut."""

    def __init__(self, app: celery.Celery, timeout: float) -> None:
        # What bounds a single read, by the names of each transport; shut_down bounds them all.
        limits: dict[str, dict[str, Any]] = {
            "amqp": {"read_timeout": timeout, "write_timeout": timeout},
            "redis": {
                "socket_timeout": timeout,
                "socket_connect_timeout": timeout,
                # Else kombu would now and then give back to the queue what workers have not
                # acknowledged. That is theirs to do, and its lock leaves a file open in each
                # thread.
                "ack_emulation": False,
            },
        }
        self._connection = app.connection_for_write(connect_timeout=timeout)
        # What holds a socket, from its first moment on: connecting is when it waits the longest.
        self._opened: WeakSet[Any] = WeakSet()
        transport = self._connection.transport
        servers = max(1, len(self._connection.alt))
        if transport.driver_type == "amqp":
            transport.Connection = self._with_shown_transport(transport.Connection)
        elif transport.driver_type == "redis":
            from kombu.transport.redis import SentinelTransport

            transport.Channel = self._shown(transport.Channel)
            # Those to sentinels, which shut_down does not see: one that is silent leaves time.
            theirs = self._connection.transport_options.get("sentinel_kwargs") or {}
            limits["redis"]["sentinel_kwargs"] = bounded(
                theirs, timeout / (servers + 1), is_async=False
            )
            if isinstance(transport, SentinelTransport):
                servers = 1  # asking one of them asks them all
        self._connection.transport_options = {
            **self._connection.transport_options,
            **limits.get(transport.driver_type, {}),
            "max_retries": servers - 1,  # each server once
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
        }
        self._virtual = hasattr(transport, "channels")  # kombu plays the broker, as over Redis
        self._mailbox = app.control.mailbox(self)
        # A queue of its own for the answers. kombu would name it by the address of an object in
        # memory, and over Redis not bind one again that it has known: not even after a restart.
        name = {"oid": str(uuid4())}
        self._mailbox.__class__ = type("Mailbox", (type(self._mailbox),), name)
        self._mailbox.producer_pool = self  # else it takes the app's, whose retries never end
        self._timeout = timeout
        self.until = 0.0
        self.sent = False

    def ping(self, names: tuple[str, ...] | None, number: int, answered: set[str]) -> None:
        """Ask the workers, and add the names of those that answer to `answered`."""

        def hear(answer: dict[str, object]) -> None:
            answered.update(answer)

        self.sent = False
        options = {
            "timeout": self._timeout,  # until when the workers take the ping for fresh
            "callback": hear,
            "channel": self._connection.default_channel,
        }
        if names is None:
            self._mailbox.multi_call("ping", limit=number, **options)
        else:
            self._mailbox.call(list(names), "ping", **options)
        if len(answered) < number:
            raise _UnansweredError  # the next run shall begin anew: it may be our own queue's fault

    def drain_events(self, timeout: float | None = None) -> object:  # noqa: ARG002 - kombu's
        """Wait for an answer for kombu's mailbox: all together until a time, not each for one."""
        while (left := self.until - time.monotonic()) > 0:
            # Over Redis kombu looks at the clock once a second, and would come too late.
            with suppress(TimeoutError):
                step = min(left, _LOOK) if self._virtual else left
                return self._connection.drain_events(timeout=step)
        raise TimeoutError

    @property
    def default_channel(self) -> Any:
        """As above: all that the mailbox wants of a connection."""
        return self._connection.default_channel

    def depth(self, queue: str) -> int:
        """Return how many messages wait in `queue`."""
        # Not by a channel of its own, for which kombu would connect with retries after all.
        channel = self._connection.default_channel
        try:
            found: int = channel.queue_declare(queue, passive=True).message_count
        except self._connection.channel_errors as exc:
            if self._virtual:
                return 0  # a list without elements is none, in Redis
            raise ProbeFailedError(str(exc)) from exc
        return found

    @contextmanager
    def acquire(self) -> Iterator[Any]:
        """Lend a producer, as its pool would, that tries once, to kombu's mailbox."""
        from kombu.messaging import Producer

        class Once(Producer):
            def publish(producer, *args: Any, **options: Any) -> Any:  # noqa: N805 - self is ours
                super().publish(*args, **options | {"retry": False})  # type: ignore[no-untyped-call] # kombu's
                self.sent = True

        yield Once(self._connection.default_channel, auto_declare=False)  # type: ignore[no-untyped-call] # kombu's

    def shut_down(self) -> None:
        """Cut the connection under whoever waits for it in another thread."""
        with suppress(Exception):  # it may be in any state
            for one in [*self._opened]:
                if hasattr(one, "async_pool"):
                    one.pool.disconnect()
                    one.async_pool.disconnect()
                elif one.sock is not None:
                    one.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close at once, without a goodbye for which a server that hangs would be awaited."""
        self.shut_down()
        with suppress(Exception):  # it may be in any state; why the run failed is known already
            self._connection.collect()
        for one in [*self._opened]:
            if not hasattr(one, "async_pool"):
                with suppress(Exception):  # as above
                    one.close()

    def _shown(self, base: type[Any]) -> type[Any]:
        """Return the class with instances that are in `_opened` before they do anything."""
        opened = self._opened

        class Shown(base):  # type: ignore[misc] # known at run time only
            def __init__(self, *args: Any, **options: Any) -> None:
                opened.add(self)
                super().__init__(*args, **options)

        return Shown

    def _with_shown_transport(self, base: type[Any]) -> type[Any]:
        """Return the class of AMQP connections with transports that are in `_opened`."""
        opened = self._opened

        class Connection(base):  # type: ignore[misc] # known at run time only
            def Transport(self, *args: Any, **options: Any) -> Any:  # noqa: N802 - py-amqp's name
                transport = super().Transport(*args, **options)
                opened.add(transport)
                return transport

        return Connection
