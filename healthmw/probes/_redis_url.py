"""RedisProbe's URLs: redis-py's own, and those for Sentinel and clusters, for which it has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from healthmw._redis_clients import Origin, of_pool

_PORT, _SENTINEL_PORT = 6379, 26379


def origin_of_url(url: str) -> Origin:
    """Return what `url` says, for asyncio. No `ValueError` quotes it."""
    scheme, _, rest = url.partition("://")
    plain, _, kind = scheme.lower().partition("+")
    try:
        if kind == "cluster":
            return _cluster(plain, rest)
        if kind == "sentinel":
            return _sentinel(plain, rest)
        return _plain(url)
    except ValueError:
        # Without redis-py's own words: they may quote the part that it took for the port.
        raise ValueError(
            "target must be a URL like redis://user:password@host:6379/0, rediss://..., unix://...,"
            " redis+sentinel://host:26379,host:26379/service/0 or redis+cluster://host:6379"
        ) from None


def _cluster(plain: str, rest: str) -> Origin:
    login, hosts, tail = _taken_apart(rest)
    nodes = tuple(_address(host, _PORT) for host in hosts)
    return replace(_plain(f"{plain}://{login}{hosts[0]}{tail}"), nodes=nodes)


def _sentinel(plain: str, rest: str) -> Origin:
    import redis.asyncio.sentinel

    login, hosts, tail = _taken_apart(rest)
    parts = urlsplit(tail)
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("the service's name is missing")
    options = dict(parse_qsl(parts.query))
    theirs = {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }
    server = _plain(f"{plain}://{login}{hosts[0]}/{db}?{urlencode(options)}")
    tls = plain == "rediss"
    managed: Any = redis.asyncio.sentinel
    return replace(
        server,
        connection_class=managed.SentinelManagedSSLConnection
        if tls
        else managed.SentinelManagedConnection,
        settings={k: v for k, v in server.settings.items() if k not in {"host", "port"}},
        sentinel=managed.Sentinel(
            [_address(host, _SENTINEL_PORT) for host in hosts],
            sentinel_kwargs={**theirs, "ssl": tls},
        ),
        service=unquote(service),
    )


def _plain(url: str) -> Origin:
    import redis.asyncio

    return of_pool(redis.asyncio.Redis.from_url(url).connection_pool, is_async=True)


def _taken_apart(rest: str) -> tuple[str, list[str], str]:
    """Return the login with its @, the hosts, and what follows them."""
    ends = [place for mark in "/?" if (place := rest.find(mark, rest.rfind("@") + 1)) >= 0]
    end = min(ends, default=len(rest))
    login, at, hosts = rest[:end].rpartition("@")
    return login + at, hosts.split(","), rest[end:]


def _address(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or port
