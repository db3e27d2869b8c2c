"""A probe of name resolution."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import anyio

from healthmw._addresses import resolve
from healthmw._driver import check_timeout
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from healthmw._model import Measurement


class DNSProbe:
    """Resolve `name` as the app would: by the machine's own resolver, `/etc/hosts` included.

    A pass proves that it resolves within `timeout` seconds and, with `expect`, that each address
    found is one of those, or in one of those networks (`"10.0.0.0/8"`).

    A resolver can't be interrupted. One that hangs holds one thread a name, however often the probe
    runs. What the machine's resolver caches is taken from its cache.

    Measures `latency_seconds` and `addresses`. Raises `ProbeFailedError`, or
    `ProbeTimeoutError`. Runs on asyncio and trio.
    """

    is_async = True

    def __init__(self, name: str, *, expect: Iterable[str] = (), timeout: float = 2.0) -> None:
        if not name:
            raise ValueError("name must not be empty")
        if isinstance(expect, str):
            raise TypeError(f"expect must be a collection of addresses: write [{expect!r}]")
        self._name = name
        self._timeout = check_timeout(timeout)
        try:
            self._expect = [ip_network(one) for one in expect]
        except ValueError as exc:
            raise ValueError(f"expect: {exc}") from None

    def __repr__(self) -> str:
        return f"<DNSProbe {self._name}>"

    async def __call__(self) -> Mapping[str, Measurement]:
        """Resolve once."""
        started = time.perf_counter()
        try:
            with anyio.fail_after(self._timeout):
                found = await resolve(self._name)
        except TimeoutError:
            raise ProbeTimeoutError(
                f"{self._name} was not resolved within {self._timeout:g} s"
            ) from None
        latency = time.perf_counter() - started
        others = [one for one in found if not self._expected(one)]
        if others:
            raise ProbeFailedError(f"{self._name} resolves to {others[0]}, which is not expected")
        return {"latency_seconds": latency, "addresses": len(found)}

    def _expected(self, address: str) -> bool:
        return not self._expect or any(ip_address(address) in net for net in self._expect)
