"""One AMQP connection of a probe's own, on pika, driven by the thread that asks."""

from __future__ import annotations

import copy
import logging
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pika import SelectConnection
from pika.adapters.select_connection import IOLoop
from pika.exceptions import AMQPError

from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pika.connection import Parameters

_CLOSE_LIMIT = 0.5  # seconds to say goodbye to the server

_probing = threading.local()


class OwnConnection:
    """A connection that is kept between asks, by any thread, and replaced when it has died.

    pika has no limit on a blocking call. So this is its callback client, whose event loop runs in
    the thread that asks, until there is an answer or the time is over. Between asks it stands
    still; therefore there are no heartbeats.
    """

    def __init__(self, *parameters: Parameters, timeout: float) -> None:
        self._parameters = [_bounded(one, timeout) for one in parameters]
        self._timeout = timeout
        self._lock = threading.Lock()  # guards the link; two threads can't drive one loop
        self._link: _Link | None = None
        self._retired = False

    def ask(self, queues: tuple[str, ...] = ()) -> list[tuple[int, int]]:
        """Open a channel, and return the messages and the consumers of each of `queues`.

        Raises `TimeoutError`, and `ProbeFailedError` with the server's or the network's words.
        """
        until = time.monotonic() + self._timeout
        if not self._lock.acquire(timeout=self._timeout):
            raise TimeoutError
        try:
            with _quiet():
                if self._link is not None:
                    with suppress(_LostError):  # it had died since the last time
                        return self._ask(self._link, queues, until)
                return self._ask_first(queues, until)
        except _LostError as exc:
            raise ProbeFailedError(_words(exc.why)) from exc.why
        finally:
            self._lock.release()
            if self._retired:  # after the release: `retire` leaves alone what is used
                self._drop_unless_used()

    def retire(self) -> None:
        """Close the connection now, or else when the ask that uses it ends."""
        self._retired = True
        self._drop_unless_used()

    def _ask_first(self, queues: tuple[str, ...], until: float) -> list[tuple[int, int]]:
        """Connect to the first of the servers that takes part, and ask that."""
        for number, parameters in enumerate(self._parameters, 1):
            try:
                # Here, and not in the thread of its own that pika starts for each name.
                socket.getaddrinfo(parameters.host, parameters.port)
                self._link = _Link(parameters)
                return self._ask(self._link, queues, until)
            except socket.gaierror as exc:
                lost = _LostError(OSError(f"can't resolve {parameters.host}: {exc}"))
            except _LostError as exc:
                lost = exc
            if number == len(self._parameters):
                raise lost
        raise AssertionError("there is no server")

    def _ask(self, link: _Link, queues: tuple[str, ...], until: float) -> list[tuple[int, int]]:
        try:
            return link.ask(queues, until)
        except ProbeFailedError:
            raise  # the server is well
        except BaseException:
            link.abort()
            self._link = None
            raise

    def _drop_unless_used(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                link, self._link = self._link, None
                if link is not None:
                    with _quiet():
                        link.close()
            finally:
                self._lock.release()


def _bounded(given: Parameters, timeout: float) -> Parameters:
    """Return a copy that connects once, in time, and tells the server whose connection it is."""
    tls, given.ssl_options = given.ssl_options, None  # an SSLContext can't be copied
    try:
        found = copy.copy(given)
    finally:
        given.ssl_options = tls
    found.ssl_options = tls
    found.connection_attempts = 1
    found.socket_timeout = found.stack_timeout = found.blocked_connection_timeout = timeout
    found.heartbeat = 0
    found.client_properties = {**(found.client_properties or {}), "connection_name": "healthmw"}
    return found


class _LostError(Exception):
    """The connection has ended, or never was; `why` is pika's reason."""

    def __init__(self, why: BaseException) -> None:
        super().__init__()
        self.why = why


class _Connection(SelectConnection):
    def abort(self) -> None:
        """Close without a goodbye, for which a server that hangs would have to be awaited."""
        self._terminate_stream(ConnectionAbortedError())


class _Link:
    """One connection and its loop, from first to last."""

    def __init__(self, parameters: Parameters) -> None:
        self._loop = IOLoop()
        self._lost: BaseException | None = None
        self._connection = _Connection(
            parameters,
            on_open_error_callback=self._end,
            on_close_callback=self._end,
            custom_ioloop=self._loop,
        )

    def ask(self, queues: tuple[str, ...], until: float) -> list[tuple[int, int]]:
        if not self._connection.is_open:
            self._wait(self._connection.add_on_open_callback, until)
        opened = self._wait(lambda done: self._connection.channel(on_open_callback=done), until)
        channel = opened[0]
        try:
            return [self._declare(channel, queue, until) for queue in queues]
        finally:
            if channel.is_open:
                self._wait(lambda done: _close(channel, done), until)

    def abort(self) -> None:
        """Close at once."""
        if self._lost is None:
            self._connection.abort()
        self._finish()

    def close(self) -> None:
        """Close in good order, where the server takes part in it."""
        with suppress(AMQPError):  # closed by the server already
            self._connection.close()
        self._turn(time.monotonic() + _CLOSE_LIMIT)
        self.abort()

    def _finish(self) -> None:
        until = time.monotonic() + _CLOSE_LIMIT
        while self._lost is None and time.monotonic() < until:
            self._turn(until)
        self._turn(time.monotonic())  # pika closes sockets by callbacks that are still to come
        self._loop.close()

    def _declare(self, channel: Any, queue: str, until: float) -> tuple[int, int]:
        def start(done: Callable[..., None]) -> None:
            channel.add_on_close_callback(done)
            channel.queue_declare(queue, passive=True, callback=done)

        found = self._wait(start, until)
        if len(found) == 2:  # the channel, and why the server has closed it
            raise ProbeFailedError(_words(found[1]))
        return found[0].method.message_count, found[0].method.consumer_count

    def _wait(
        self, start: Callable[[Callable[..., None]], object], until: float
    ) -> tuple[Any, ...]:
        """Begin something, and return what its callback is given."""
        found: list[tuple[Any, ...]] = []

        def done(*values: object) -> None:
            found.append(values)
            self._loop.stop()

        try:
            start(done)
        except AMQPError as exc:
            raise _LostError(exc) from exc
        while not found and self._lost is None and time.monotonic() < until:
            self._turn(until)
        if found:
            return found[0]
        if self._lost is not None:
            raise _LostError(self._lost)
        raise TimeoutError

    def _turn(self, until: float) -> None:
        """Run the loop until something stops it, or for as long as there is time."""
        timer = self._loop.call_later(max(0.0, until - time.monotonic()), self._loop.stop)
        self._loop.start()
        self._loop.remove_timeout(timer)

    def _end(self, _: object, exc: BaseException) -> None:
        self._lost = exc
        self._loop.stop()


def _close(channel: Any, done: Callable[..., None]) -> None:
    channel.add_on_close_callback(done)
    channel.close()


def _words(exc: Any) -> str:
    """Return the reason at the bottom of what pika has wrapped around it."""
    while True:
        inner = getattr(exc, "exceptions", None) or [one for one in exc.args if _is_error(one)]
        if not inner and not _is_error(getattr(exc, "exception", None)):
            return getattr(exc, "reply_text", "") or str(exc) or type(exc).__name__
        exc = inner[-1] if inner else exc.exception


def _is_error(value: object) -> bool:
    return isinstance(value, BaseException)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pika from logging each failure, as an error and at length: the result tells it."""
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("pika"):
            logging.getLogger(name).addFilter(_not_a_probe)  # once: it knows what it has
    _probing.now = True
    try:
        yield
    finally:
        _probing.now = False


def _not_a_probe(_: logging.LogRecord) -> bool:
    return not getattr(_probing, "now", False)
