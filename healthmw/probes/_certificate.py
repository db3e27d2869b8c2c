"""A probe of a server's TLS certificate."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING

import anyio
from anyio.streams.tls import TLSAttribute, TLSStream

from healthmw._addresses import connect, show_address
from healthmw._bounds import below
from healthmw._driver import check_timeout, why
from healthmw._options import count
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from healthmw._model import Measurement
    from healthmw._probe import Degraded

_DAY = 86400
_MAX_PORT = 65535


class CertificateProbe:
    """Look at the certificate that `host` shows on `port`, as a client would that connects to it.

    A pass proves that a TLS handshake worked, that the chain leads to an authority that is trusted
    here, that the certificate is for that name and valid today, and that it is so for at least
    `degraded_below` days to come. `failed_below` (days) is where it fails before it is too late.

    - `server_name`: the name that it must be for, where that isn't `host`.
    - `cafile`: a PEM file of the authorities to trust, in place of the machine's.
    - `timeout`: seconds for all of it: name, connection and handshake.

    Measures `days_left` and `latency_seconds`. Raises `ProbeFailedError`, or `ProbeTimeoutError`.
    Runs on asyncio and trio.
    """

    is_async = True

    def __init__(
        self,
        host: str,
        port: int = 443,
        *,
        server_name: str | None = None,
        cafile: str | os.PathLike[str] | None = None,
        degraded_below: float | None = 21,
        failed_below: float | None = None,
        timeout: float = 2.0,
    ) -> None:
        if not host:
            raise ValueError("host must not be empty")
        self._host = host
        self._port = count("port", port, _MAX_PORT)
        self._name = server_name or host
        self._bounds = below(degraded_below, failed_below)
        self._timeout = check_timeout(timeout)
        try:
            self._tls = ssl.create_default_context(cafile=cafile)
        except (OSError, TypeError, ValueError) as exc:  # Python's words don't say which file
            raise ValueError(f"cafile: nothing to trust in {str(cafile)!r}: {exc}") from exc

    def __repr__(self) -> str:
        return f"<CertificateProbe {show_address(self._host, self._port)}>"

    async def __call__(self) -> Degraded | Mapping[str, Measurement]:
        """Connect, shake hands and look."""
        started = time.perf_counter()
        try:
            with anyio.fail_after(self._timeout):
                expires = await self._shake_hands()
        except TimeoutError:
            raise ProbeTimeoutError(f"no TLS handshake within {self._timeout:g} s") from None
        except ssl.SSLCertVerificationError as exc:
            raise ProbeFailedError(f"not to be trusted: {exc.verify_message}") from exc
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as exc:
            raise ProbeFailedError(f"no TLS handshake: {why(exc)}") from exc
        days = (expires - time.time()) / _DAY
        found = {"days_left": days, "latency_seconds": time.perf_counter() - started}
        words = f"the certificate expires in {days:.1f} days"
        return self._bounds.judge(days, words, found) or found

    async def _shake_hands(self) -> float:
        """Return when the certificate expires, in Unix time."""
        try:
            stream = await connect(self._host, self._port)
        except OSError as exc:
            raise ProbeFailedError(f"can't connect: {why(exc)}") from exc
        try:
            tls = await TLSStream.wrap(
                stream, hostname=self._name, ssl_context=self._tls, standard_compatible=False
            )
            shown = tls.extra(TLSAttribute.peer_certificate)  # noqa: S610 - not Django's `extra`
        finally:
            await anyio.aclose_forcefully(stream)  # a goodbye may take as long as the peer likes
        return float(ssl.cert_time_to_seconds(str((shown or {})["notAfter"])))
