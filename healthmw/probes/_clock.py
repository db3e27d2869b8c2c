"""A probe of the machine's clock, against a time server."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from healthmw._addresses import resolve
from healthmw._bounds import above
from healthmw._driver import check_timeout
from healthmw._options import count
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from healthmw._model import Measurement
    from healthmw._probe import Degraded

_1900_TO_1970 = 2_208_988_800
_ERA = 2**32
_PACKET = 48
_SERVER = 4
_MAX_STRATUM = 15
_MAX_PORT = 65535


class ClockProbe:
    """Compare this machine's clock with that of an NTP server.

    Signed tokens, TLS and one-time passwords go wrong on a machine whose clock does. A pass proves
    that the server answered in time, and that the two differ by no more than `degraded_above`
    (seconds); by more than `failed_above` it fails. None for no bound.

    `server` is the one that the machine itself should follow: your cloud's (`169.254.169.123` on
    AWS, `metadata.google.internal` on Google Cloud), or your network's. Mind the rules of public
    ones: `per_hour=4` on the check is polite. One packet each way, by RFC 5905 (SNTP); UDP to
    `port` must be let through. `timeout` (seconds) bounds all of it.

    Measures `offset_seconds` (positive where this machine is behind) and `latency_seconds`. Raises
    `ProbeFailedError`, or `ProbeTimeoutError` when no answer came. Runs on asyncio and trio.
    """

    is_async = True

    def __init__(
        self,
        server: str,
        *,
        port: int = 123,
        degraded_above: float | None = 1.0,
        failed_above: float | None = 30.0,
        timeout: float = 2.0,
    ) -> None:
        if not server:
            raise ValueError("server must not be empty")
        self._server = server
        self._port = count("port", port, _MAX_PORT)
        self._bounds = above(degraded_above, failed_above)
        self._timeout = check_timeout(timeout)

    def __repr__(self) -> str:
        return f"<ClockProbe {self._server}>"

    async def __call__(self) -> Degraded | Mapping[str, Measurement]:
        """Ask once."""
        try:
            with anyio.fail_after(self._timeout):
                offset, latency = await self._ask()
        except TimeoutError:
            raise ProbeTimeoutError(f"no time within {self._timeout:g} s") from None
        except OSError as exc:
            raise ProbeFailedError(f"can't ask {self._server}: {exc}") from exc
        found = {"offset_seconds": offset, "latency_seconds": latency}
        side = "behind" if offset > 0 else "ahead of"
        words = f"the clock is {abs(offset):.2f} s {side} that of {self._server}"
        return self._bounds.judge(abs(offset), words, found) or found

    async def _ask(self) -> tuple[float, float]:
        """Return by how much this clock is behind, and how long the answer took, in seconds.

        Each address has an equal part of the time that is left.
        """
        addresses = await resolve(self._server)
        until = anyio.current_effective_deadline()
        for number, address in enumerate(addresses[:-1]):
            share = (until - anyio.current_time()) / (len(addresses) - number)
            with suppress(OSError), anyio.fail_after(share):
                return await self._ask_at(address)
        return await self._ask_at(addresses[-1])

    async def _ask_at(self, address: str) -> tuple[float, float]:
        # The time that a client shows is for itself: by a random one it knows a forged answer.
        token = secrets.token_bytes(8)
        # Not by anyio's UDP: on asyncio that resolves even an address in the app's own threads.
        with socket.socket(_family(address), socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect((address, self._port))
            sent, began = time.time(), time.perf_counter()
            udp.send(struct.pack("!B39x8s", 4 << 3 | 3, token))  # version 4, a client
            while True:
                await anyio.wait_readable(udp)
                answer = udp.recv(_PACKET)
                latency = time.perf_counter() - began
                if len(answer) == _PACKET and answer[24:32] == token:
                    break
        if answer[0] & 7 != _SERVER or not 0 < answer[1] <= _MAX_STRATUM or answer[0] >> 6 == 3:
            raise ProbeFailedError(f"{self._server} says that it does not know the time itself")
        received, answered = (_unix(part, near=sent) for part in (answer[32:40], answer[40:48]))
        return ((received - sent) + (answered - (sent + latency))) / 2, latency


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _unix(stamp: bytes, *, near: float) -> float:
    """Return an NTP timestamp in Unix time, in the era of 136 years that is `near`."""
    seconds, fraction = struct.unpack("!II", stamp)
    found = seconds - _1900_TO_1970 + fraction / _ERA
    return float(found + round((near - found) / _ERA) * _ERA)
