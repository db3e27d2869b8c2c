"""Memcached, through pymemcache."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from healthmw.probes import MemcachedProbe
from tests.faults.subject import Address, Fault, Subject
from tests.services.store_servers import Memcached

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from healthmw._probe import Probe

_LIMIT = 64


class _SmallMemcached(Memcached):
    """With a limit."""

    def command(self) -> Sequence[str]:
        return (*super().command(), "-c", str(_LIMIT))


class Pymemcache(Subject):
    """By its sync client."""

    name = "`MemcachedProbe`, pymemcache"
    no = {Fault.PASSWORD: "the probe logs in nowhere, as pymemcache can't"}  # noqa: RUF012
    server: Memcached

    def new_server(self) -> Memcached:
        return _SmallMemcached()

    def probe(self, at: Address, timeout: float) -> Probe:
        import pymemcache

        tls = None if at.ca is None else ssl.create_default_context(cafile=at.ca)
        client = pymemcache.Client((at.host, at.port), tls_context=tls)
        return MemcachedProbe(client, timeout=timeout)

    @contextmanager
    def fill(self) -> Iterator[None]:
        with ExitStack() as stack:
            for _ in range(2 * _LIMIT):
                sock = socket.create_connection(("127.0.0.1", self.server.port))
                stack.enter_context(sock)
            yield
