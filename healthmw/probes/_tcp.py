"""A probe of anything that listens on a TCP port."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import anyio

from healthmw._addresses import connect, show_address
from healthmw._driver import check_timeout, why
from healthmw._options import count, text
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from healthmw._model import Measurement

_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^]]+)]|(?P<host>[^:]+)):(?P<port>\d+)")
_MAX_PORT = 65535


class TCPProbe:
    """Connect to `host` and `port`, and close again at once.

    A pass proves that something accepts connections there, and no more: the kernel accepts for a
    process that is frozen. Prefer a probe that speaks the service's protocol where there is one.

    `TCPProbe("db.internal", 5432)` and `TCPProbe("db.internal:5432")` are the same; an IPv6 address
    with a port is written `[::1]:5432`. `timeout` (seconds) bounds name resolution and connecting
    together; the check's own timeout counts where it is shorter.

    Measures `latency_seconds`, the time to connect. Raises `ProbeFailedError`.
    """

    is_async = True

    def __init__(self, host: str, port: int | None = None, *, timeout: float = 2.0) -> None:
        text("host", host)
        if port is None:
            match = _HOST_PORT.fullmatch(host)
            if match is None:
                raise ValueError(f"host must be 'HOST:PORT' when no port is given, not {host!r}")
            host, port = match["v6"] or match["host"], int(match["port"])
        if not host:
            raise ValueError("host must not be empty")
        self._host = host
        self._port = count("port", port, _MAX_PORT)
        self._timeout = check_timeout(timeout)

    def __repr__(self) -> str:
        return f"<TCPProbe {show_address(self._host, self._port)}>"

    async def __call__(self) -> Mapping[str, Measurement]:
        """Connect once."""
        started = time.perf_counter()
        try:
            with anyio.fail_after(self._timeout):
                stream = await connect(self._host, self._port)
        except TimeoutError:
            raise ProbeTimeoutError(f"no connection within {self._timeout:g} s") from None
        except OSError as exc:
            raise ProbeFailedError(f"can't connect: {why(exc)}") from exc
        latency = time.perf_counter() - started
        await stream.aclose()
        return {"latency_seconds": latency}
