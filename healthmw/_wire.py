"""A connection for one short talk of an async probe: bounded in bytes, closed whatever happens."""

from __future__ import annotations

import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.streams.tls import TLSStream

from healthmw._addresses import connect
from healthmw._driver import why
from healthmw._options import WrongTypeError
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from anyio.abc import ByteStream

    from healthmw._model import Measurement


class Wire:
    """Reads and writes over one connection, that a `wire(...)` block opened and will close."""

    def __init__(self, stream: ByteStream, host: str) -> None:
        self._stream = stream
        self._host = host
        self._read = b""

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            await self._stream.send(data)
        except (anyio.BrokenResourceError, OSError) as exc:
            raise ProbeFailedError(f"the connection was lost: {why(exc)}") from exc

    async def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        while len(self._read) < size:
            await self._more()
        found, self._read = self._read[:size], self._read[size:]
        return found

    async def line(self, limit: int) -> bytes:
        r"""Return the next line, at most `limit` bytes, without its `\r\n`."""
        while b"\n" not in self._read[:limit]:
            if len(self._read) >= limit:
                raise ProbeFailedError("the answer is not of this protocol: a line does not end")
            await self._more()
        found, _, self._read = self._read.partition(b"\n")
        return found.rstrip(b"\r")

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Go on encrypted. What came before in the clear, unasked for, is refused."""
        if self._read:
            raise ProbeFailedError("the server sent more than it was asked for before TLS")
        try:
            self._stream = await TLSStream.wrap(
                self._stream, hostname=self._host, ssl_context=context, standard_compatible=False
            )
        except (anyio.BrokenResourceError, anyio.EndOfStream, OSError) as exc:
            raise ProbeFailedError(f"TLS failed: {why(exc)}") from exc

    async def _more(self) -> None:
        try:
            self._read += await self._stream.receive()
        except anyio.EndOfStream:
            raise ProbeFailedError("the server closed the connection") from None
        except (anyio.BrokenResourceError, OSError) as exc:
            raise ProbeFailedError(f"the connection was lost: {why(exc)}") from exc


@asynccontextmanager
async def wire(host: str, port: int, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Wire]:
    """Connect, with TLS at once where `tls` is given; raises `ProbeFailedError`."""
    try:
        stream = await connect(host, port)
    except OSError as exc:
        raise ProbeFailedError(f"can't connect: {why(exc)}") from exc
    try:
        talk = Wire(stream, host)
        if tls is not None:
            await talk.start_tls(tls)
        yield talk
    finally:
        await anyio.aclose_forcefully(stream)  # TLS or not: there is nothing left to say


async def hold(
    talk: Callable[[Wire], Awaitable[None]],
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    *,
    timeout: float,
) -> Mapping[str, Measurement]:
    """Connect and hold a talk within `timeout` seconds; return how long it took."""
    started = time.perf_counter()
    try:
        with anyio.fail_after(timeout):
            async with wire(host, port, tls) as opened:
                await talk(opened)
    except TimeoutError:
        raise ProbeTimeoutError(f"no answer within {timeout:g} s") from None
    return {"latency_seconds": time.perf_counter() - started}


def checked_verify(verify: object) -> bool | ssl.SSLContext:
    """Return `verify` if it is one; a path would be taken for True, and the file never be read."""
    if not isinstance(verify, bool | ssl.SSLContext):
        raise WrongTypeError(
            "verify must be True, False or an ssl.SSLContext, not"
            f" {type(verify).__name__}: for a file, ssl.create_default_context(cafile=...)"
        )
    return verify


def tls_context(verify: bool | ssl.SSLContext) -> ssl.SSLContext:
    """Return how to check a server's certificate: True, as Python does by default; False, not."""
    verify = checked_verify(verify)
    if isinstance(verify, ssl.SSLContext):
        return verify
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
