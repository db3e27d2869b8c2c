"""What the probes that speak HTTP share around httpx2."""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from healthmw._addresses import look_up
from healthmw._options import WrongTypeError
from healthmw.exceptions import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Discard = Callable[[], Awaitable[object]] | None

T = TypeVar("T")

_CONNECTING = {"connection", "proxy", "socks"}


def load_httpx2(what: str) -> None:
    """Load httpx2 for `what`, with all that its first client loads, which takes a while.

    So it happens where a probe is made, and not on the app's event loop in the first run.
    Raises `MissingExtraError` where it is not installed.
    """
    try:
        import httpx2
    except ImportError as exc:
        raise MissingExtraError(what, extra="httpx2") from exc
    if "httpcore2" not in sys.modules:
        httpx2.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def checked_client(client: T) -> T:
    """Return `client` if it is None or an async one, httpx2's or httpx's; others fail each run."""
    names = {kind.__name__ for kind in client.__class__.__mro__}
    if client is not None and "AsyncClient" not in names:
        raise WrongTypeError(f"client must be an httpx2.AsyncClient, not {type(client).__name__}")
    return client


async def again_if_stale(fetch: Callable[[Trace], Awaitable[T]], discard: Discard = None) -> T:
    """Return what `fetch` does; once more where a connection that was kept broke down under it.

    The server may have closed it in this very moment, which tells nothing about it.
    """
    import httpx2

    trace = Trace(discard)
    try:
        return await fetch(trace)
    except (httpx2.RemoteProtocolError, httpx2.NetworkError):
        if trace.connects:
            raise
    return await fetch(Trace(discard))


class Trace:
    """Steps in where the client makes a connection, which it does seldom.

    Given as the request's extension `trace`. `discard` closes the client, if it is a probe's own.
    """

    def __init__(self, discard: Discard = None) -> None:
        self._discard = discard
        self._stream: Any = None
        self.connects = False
        """Whether a connection was made for this request, and none that was kept has served it."""

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        by, _, step = event.partition(".")
        if step == "connect_tcp.started":
            self.connects, self._stream = True, None
            await look_up(info["host"])
        elif step == "connect_tcp.complete":
            self._stream = info["return_value"]
        elif by in _CONNECTING and step.endswith(".failed"):
            with anyio.CancelScope(shield=True):
                # httpcore forgets it when the handshake is cancelled.
                if self._stream is not None:
                    await self._stream.aclose()
                # By way of a proxy it also counts what has failed among its connections, for ever.
                if by != "connection" and self._discard is not None:
                    await self._discard()
