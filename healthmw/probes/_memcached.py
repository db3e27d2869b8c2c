"""A probe of Memcached."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from healthmw._driver import check_timeout, time_limit
from healthmw._held import PerProcess
from healthmw._probe import Degraded
from healthmw.exceptions import MissingExtraError, ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from healthmw._probe import Outcome

_PORT = 11211
_KEY_LIFE = 60  # seconds: what a run that was cut short leaves behind goes by itself

# How the app's client connects: what the probe's own clients are made with, too.
_SETTINGS = ("key_prefix", "no_delay", "socket_keepalive", "socket_module", "tls_context")


class MemcachedProbe:
    """Write to Memcached, read it back and compare, over one connection that is kept between runs.

    `target` is the app's own client of pymemcache (`Client`, `PooledClient`, `HashClient`), or
    `"host:port"`, a Unix socket's path, or a URL, `memcached://host:port,host:port`. The probe's
    connections are its own, one to each server, made as the client makes its own; the app's are
    not used.

    - `mode="roundtrip"` (default): a key of the probe's own is written, read back, compared and
      deleted. A pass proves that each server keeps what it is given.
    - `mode="ping"`: a pass proves that each server told its version.
    - `timeout`: seconds for all of it; of several servers, each has its share. The check's own
      timeout counts where it is shorter.

    Where some of several servers fail and others do not, the outcome is degraded. Asked in a
    thread, on asyncio and trio. Measures `latency_seconds` and `servers`, the number of those that
    passed. Raises `ProbeFailedError`.
    """

    def __init__(
        self,
        target: Any,
        *,
        mode: Literal["roundtrip", "ping"] = "roundtrip",
        timeout: float = 2.0,
    ) -> None:
        try:
            import pymemcache  # noqa: F401 - only to see that it is there
        except ImportError as exc:
            raise MissingExtraError("MemcachedProbe", extra="pymemcache") from exc
        if mode not in {"roundtrip", "ping"}:
            raise ValueError(f"mode must be 'roundtrip' or 'ping', not {mode!r}")
        self._servers = _servers_of(target)
        self._roundtrip = mode == "roundtrip"
        self._timeout = check_timeout(timeout)
        self._own = PerProcess(self._make)

    def __repr__(self) -> str:
        return f"<MemcachedProbe {','.join(_named(server) for server, _ in self._servers)}>"

    def __call__(self) -> Outcome:
        """Ask each server once."""
        started = time.monotonic()
        own = self._own.get()
        if not own.lock.acquire(timeout=self._timeout):
            raise ProbeTimeoutError(f"no answer within {self._timeout:g} s")
        share = (self._timeout - (time.monotonic() - started)) / len(own.clients)
        failures: list[ProbeFailedError] = []
        try:
            for client in own.clients:
                try:
                    self._ask(client, max(0.001, share))
                except ProbeFailedError as exc:
                    failures.append(exc)
        finally:
            own.lock.release()
        if len(failures) == len(own.clients):
            raise failures[0]
        measured = {
            "latency_seconds": time.monotonic() - started,
            "servers": len(own.clients) - len(failures),
        }
        return Degraded("; ".join(map(str, failures)), measured) if failures else measured

    async def aclose(self) -> None:
        """Close the probe's connections; the next run opens others."""
        own = self._own.pop()
        if own is not None:
            for client in own.clients:
                _shut_down(client)
                client.close()

    def _make(self) -> _OwnClients:
        from pymemcache.client.base import Client

        limits = {"timeout": self._timeout, "connect_timeout": self._timeout}
        return _OwnClients(
            [Client(server, **settings, **limits) for server, settings in self._servers]
        )

    def _ask(self, client: Any, limit: float) -> None:
        from pymemcache.exceptions import MemcacheError

        name = _named(client.server)
        client.timeout = client.connect_timeout = limit
        kept = client.sock is not None
        if kept:
            client.sock.settimeout(limit)
        try:
            with time_limit(limit, lambda: _shut_down(client)):
                try:
                    self._talk(client)
                except (MemcacheError, OSError) as exc:
                    if not kept or isinstance(exc, TimeoutError):
                        raise
                    client.close()
                    self._talk(client)  # it had died since the last run
        except TimeoutError as exc:
            client.close()
            raise ProbeTimeoutError(f"{name}: no answer within {limit:g} s") from exc
        except ProbeFailedError as exc:
            raise ProbeFailedError(f"{name}: {exc}") from exc
        except Exception as exc:  # a server that is none makes pymemcache stumble in any way
            client.close()
            raise ProbeFailedError(f"{name}: {type(exc).__name__}: {exc}") from exc

    def _talk(self, client: Any) -> None:
        if not self._roundtrip:
            client.version()
            return
        key, value = f"healthmw:{secrets.token_hex(8)}", secrets.token_hex(8).encode()
        stored = client.set(key, value, expire=_KEY_LIFE, noreply=False)
        if not stored or client.get(key) != value:
            raise ProbeFailedError("what was read back is not what was written")
        client.delete(key, noreply=False)


class _OwnClients:
    """One client for each server. The lock guards them among threads."""

    def __init__(self, clients: list[Any]) -> None:
        self.lock = threading.Lock()
        self.clients = clients


def _servers_of(target: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Return the servers, each with the settings of its client."""
    from pymemcache.client.base import Client, PooledClient
    from pymemcache.client.hash import HashClient

    if isinstance(target, str):
        return [(server, {}) for server in _parsed(target)]
    clients = [*target.clients.values()] if isinstance(target, HashClient) else [target]
    if not clients or not all(isinstance(one, Client | PooledClient) for one in clients):
        raise TypeError(
            "target must be a client of pymemcache, 'host:port' or a URL like"
            f" memcached://host:port, not {type(target).__name__}"
        )
    return [
        (one.server, {name: getattr(one, name) for name in _SETTINGS if hasattr(one, name)})
        for one in clients
    ]


def _parsed(text: str) -> list[Any]:
    scheme, mark, rest = text.rpartition("://")
    known = not mark or scheme.lower() == "memcached"
    if known and rest.startswith("/"):
        return [rest]
    try:
        parts = [urlsplit(f"//{one}") for one in rest.rstrip("/").split(",")]
        servers = [(one.hostname, one.port or _PORT) for one in parts]
    except ValueError:
        known = False
    if not known or any(not one.hostname or one.path or "@" in one.netloc for one in parts):
        raise ValueError(
            "target must be 'host:port', a socket's path, or memcached://host:port,host:port;"
            " without user and password, which pymemcache does not send"
        ) from None
    return servers


def _named(server: Any) -> str:
    return f"{server[0]}:{server[1]}" if isinstance(server, tuple | list) else str(server)


def _shut_down(client: Any) -> None:
    sock = client.sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
