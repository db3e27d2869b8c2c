"""A probe of NATS, and of what consumers of its JetStream have still to read."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import anyio

from healthmw._addresses import look_up, show_address
from healthmw._bounds import not_negative
from healthmw._driver import check_timeout, require_asyncio
from healthmw._held import PerLoop
from healthmw._probe import Degraded
from healthmw._wire import tls_context
from healthmw.exceptions import MissingExtraError, ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.client import Client

    from healthmw._model import Measurement
    from healthmw._probe import Outcome

_CLOSE_LIMIT = 0.5  # seconds to say goodbye to the server
_RETRY_WAIT = 0.01  # seconds, where nats-py insists on a second attempt
_FOREVER = 3600  # seconds for what is bounded from outside


class NATSProbe:
    """Send a `PING` to a NATS server and wait for its `PONG`.

    A pass proves that the server accepted the login and answered; with `stream=`, that JetStream
    has that stream; with `consumer=` too, that the stream has that durable consumer.

    `target` is the app's own connected `nats.aio.client.Client`, asked on the connection that the
    app uses, on the app's event loop; or a URL (`nats://user:password@host:4222`), for a connection
    of the probe's own that is kept between runs. It goes over to TLS where the server asks for it;
    with `tls://` it fails where it does not, and sends no password.

    - `stream`, `consumer`: names in JetStream.
    - `max_pending`: with more messages than that for the consumer still to read, the run is
      `Degraded`.
    - `verify`, with a URL: True checks the server's certificate; an `ssl.SSLContext` checks it by
      that; False does not.
    - `timeout`: seconds for all of it: name, connection, TLS, login, the answers. The check's own
      timeout counts where it is shorter.

    It needs asyncio, because nats-py does. Measures `latency_seconds`; of a stream
    `stream_messages`; of a consumer `pending_messages` and `unacknowledged_messages`. Raises
    `ProbeFailedError`.
    """

    is_async = True

    def __init__(
        self,
        target: str | Client,
        *,
        stream: str | None = None,
        consumer: str | None = None,
        max_pending: int | None = None,
        verify: bool | ssl.SSLContext = True,
        timeout: float = 2.0,
    ) -> None:
        try:
            from nats.aio.client import Client
        except ImportError as exc:
            raise MissingExtraError("NATSProbe", extra="nats") from exc
        if not isinstance(target, str | Client):
            raise TypeError(f"target must be a URL or a NATS client, not {type(target).__name__}")
        if consumer is not None and stream is None:
            raise ValueError("consumer is one of a stream: name that by stream=")
        if max_pending is not None and consumer is None:
            raise ValueError("max_pending is of a consumer: name it by consumer=")
        not_negative(max_pending=max_pending)
        if verify is not True and not isinstance(target, str):
            raise ValueError("verify is for a URL: a client has its own TLS")
        self._target = target
        self._address = _address(target) if isinstance(target, str) else "the app's client"
        self._stream = stream
        self._consumer = consumer
        self._max_pending = max_pending
        # Where a server of nats:// wants TLS, nats-py makes the default context itself.
        self._tls = None if verify is True else tls_context(verify)
        self._timeout = check_timeout(timeout)
        self._own = PerLoop(_Own, _close)

    def __repr__(self) -> str:
        return f"<NATSProbe {self._address}>"

    async def __call__(self) -> Outcome:
        """Ask once."""
        require_asyncio("nats-py", instead="probe the server by TCPProbe on trio")
        from nats.errors import Error

        started = time.perf_counter()
        try:
            with anyio.fail_after(self._timeout):
                found = await self._ask()
        except TimeoutError as exc:
            raise ProbeTimeoutError(f"no answer within {self._timeout:g} s") from exc
        except ProbeFailedError:
            raise
        except (Error, OSError) as exc:
            raise ProbeFailedError(f"{type(exc).__name__}: {exc}") from exc
        found = {"latency_seconds": time.perf_counter() - started, **found}
        pending = int(found.get("pending_messages", 0))
        if self._max_pending is not None and pending > self._max_pending:
            detail = f"{pending} messages pending for {self._consumer!r}"
            return Degraded(f"{detail}, more than {self._max_pending}", found)
        return found

    async def aclose(self) -> None:
        """Close the probe's own connection on this loop; the next run opens another."""
        await self._own.aclose()

    async def _ask(self) -> dict[str, Measurement]:
        """Ask over the app's client, or the probe's own, which is replaced when it has died."""
        if not isinstance(self._target, str):
            try:
                return await self._look(self._target)
            except _LostError as exc:
                raise ProbeFailedError(str(exc)) from exc
        own = await self._own.get()
        async with own.lock:
            if own.client is not None:
                with suppress(_LostError):
                    return await self._look_by(own)
            await look_up(urlsplit(self._target).hostname)
            own.client = await _connect(self._target, self._tls, own.end)
            try:
                return await self._look_by(own)
            except _LostError as exc:
                raise ProbeFailedError(str(exc)) from exc

    async def _look_by(self, own: _Own) -> dict[str, Measurement]:
        assert own.client is not None  # noqa: S101 - for the type checker
        try:
            # nats-py would wait on for an answer when the connection has ended.
            with anyio.CancelScope() as own.asking:
                return await self._look(own.client)
        except (_LostError, anyio.get_cancelled_exc_class()):
            await _close(own)
            raise
        await _close(own)
        raise _LostError("the connection was lost")

    async def _look(self, client: Client) -> dict[str, Measurement]:
        from nats.errors import Error
        from nats.js.errors import APIError

        try:
            await _ping(client)
        except (Error, OSError) as exc:
            raise _LostError(f"{type(exc).__name__}: {exc}") from exc
        if self._stream is None:
            return {}
        jetstream = client.jetstream(timeout=_FOREVER)
        try:
            if self._consumer is None:
                stream = await jetstream.stream_info(self._stream)
                return {"stream_messages": stream.state.messages}
            consumer = await jetstream.consumer_info(self._stream, self._consumer)
        except APIError as exc:  # there is none, or no right to see it
            of = f"stream {self._stream!r}"
            if self._consumer is not None:
                of = f"consumer {self._consumer!r} of {of}"
            raise ProbeFailedError(f"{of}: {exc.description or exc}") from exc
        return {
            "pending_messages": consumer.num_pending or 0,
            "unacknowledged_messages": consumer.num_ack_pending or 0,
        }


class _LostError(Exception):
    """The connection has ended."""


class _Own:
    """The probe's own client on one event loop, and who may use it now."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.client: Client | None = None
        self.asking = anyio.CancelScope()

    async def end(self) -> None:
        """Take note that the connection has ended."""
        self.asking.cancel()


async def _ping(client: Client) -> None:
    """Wait for the server's `PONG`. Bounded by the caller, who may cancel this.

    nats-py's own `flush` takes a client that has stopped reading for a success. Cancelled, it makes
    one stop: nats-py's reading ends, for good and unseen, at a late `PONG` for what was cancelled.
    """
    if not client.is_connected:
        raise _LostError("the connection is closed")
    if not hasattr(client, "_send_ping"):  # as in a nats-py to come: it has no public name
        await client.flush(timeout=_FOREVER)
        return
    reading = client._reading_task  # noqa: SLF001 - it goes with the name above
    if reading is None or reading.done():
        raise _LostError("the client has stopped reading")
    pong = asyncio.get_running_loop().create_future()
    await client._send_ping(pong)  # noqa: SLF001 - as above
    await asyncio.shield(pong)


async def _connect(
    url: str, tls: ssl.SSLContext | None, ended: Callable[[], Awaitable[None]]
) -> Client:
    """Return a new client that calls `ended` when its connection ends. Bounded by the caller."""
    from nats.errors import NoServersError

    seen: list[Exception] = []

    async def note(exc: Exception) -> None:
        seen.append(exc)

    client = _client_class()()
    # nats-py takes a URL's login as it stands there, percent-encoded.
    parts = urlsplit(url)
    login, _, server = parts.netloc.rpartition("@")
    name, colon, password = map(unquote, login.partition(":"))
    try:
        await client.connect(
            parts._replace(netloc=server).geturl(),
            user=name if colon else None,
            password=password if colon else None,
            token=name if name and not colon else None,
            name="healthmw",
            error_cb=note,
            closed_cb=ended,
            tls=tls,
            allow_reconnect=False,
            connect_timeout=_FOREVER,
            max_reconnect_attempts=1,
            reconnect_time_wait=_RETRY_WAIT,  # type: ignore[arg-type] # nats-py waits for it as it is
        )
    except ssl.SSLError:
        raise  # asyncio has closed the connection, and nats-py would wait to hear of that
    except BaseException as exc:
        own = _Own()
        own.client = client
        await _close(own)
        if isinstance(exc, NoServersError) and seen:
            raise ProbeFailedError(f"can't connect: {seen[0]}") from seen[0]
        raise
    return client


@cache
def _client_class() -> type[Client]:
    from nats.aio.client import Client

    class Ending(Client):
        """A client that keeps to TLS, and ends when its connection does.

        nats-py first sends what it has still to send. When that fails it breaks off, closes nothing
        and calls nobody back.
        """

        def _connect_command(self) -> bytes:
            # With the login. nats-py goes on in the clear where the server wants no TLS.
            asked = self._current_server is not None and self._current_server.uri.scheme == "tls"
            if asked and not self._server_info.get("tls_required"):
                raise ProbeFailedError("the server does not go over to TLS, which tls:// wants")
            return super()._connect_command()

        async def _close(self, status: int, do_cbs: bool = True) -> None:
            self._pending, self._pending_data_size = [], 0
            await super()._close(status, do_cbs)

    return Ending


async def _close(own: _Own) -> None:
    """Close the client, and its connection in any case."""
    client, own.client = own.client, None
    if client is None:
        return
    with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_LIMIT), suppress(Exception):
        await client.close()


def _address(url: str) -> str:
    """Return the host and port of `url`, without its text in any complaint: it holds a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 4222
    except ValueError:
        host = None
    if not host or parts.scheme not in {"nats", "tls"}:
        raise ValueError("target must be a URL like nats://user:password@host:4222 or tls://...")
    return show_address(host, port)
