"""From a DSN to the probe of what it names."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from healthmw import probes
from healthmw.exceptions import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Engine, Pool
    from sqlalchemy.ext.asyncio import AsyncEngine

    from healthmw._probe import Probe

ENTRY_POINTS = "healthmw.probes"

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")  # RFC 3986

# Drivers by module and by SQLAlchemy's name for them, the preferred one first. Only these are asked
# for by a URL that names none: SQLAlchemy's own choice is fixed, and may not be what is installed.
_POSTGRESQL = {"psycopg": "psycopg", "psycopg2": "psycopg2", "asyncpg": "asyncpg"}
_MYSQL = {"pymysql": "pymysql", "MySQLdb": "mysqldb", "asyncmy": "asyncmy", "aiomysql": "aiomysql"}
_SQL = {
    "postgresql": ("postgresql", _POSTGRESQL),
    "postgres": ("postgresql", _POSTGRESQL),  # Heroku's word for it, which SQLAlchemy dropped
    "mysql": ("mysql", _MYSQL),
    "mariadb": ("mariadb", _MYSQL),
    "sqlite": ("sqlite", {}),
}
# What can be installed for a dialect: the extra, and the URLs for which it is enough.
_EXTRAS = {
    "postgresql": ("postgresql", "postgresql+psycopg"),
    "mysql": ("mysql", "mysql+pymysql"),
    "mariadb": ("mysql", "mariadb+pymysql"),
    "sqlite": ("sqlalchemy", "sqlite"),
}


def probe_from_dsn(url: str, *, timeout: float = 2.0) -> Probe:
    """Return a probe of what `url` names, with connections of its own.

    - `tcp://HOST:PORT`: that something listens there.
    - `tls://HOST:PORT`, 443 if left out: a `CertificateProbe`. `dns://NAME`: a `DNSProbe`.
      `ntp://HOST`: a `ClockProbe`.
    - `http://`, `https://`: an `HTTPProbe`.
    - `redis://`, `rediss://`, `unix:///SOCKET` (or `redis+socket://`), `redis+cluster://` and
      `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE`: a `RedisProbe`.
    - `memcached://HOST:PORT,HOST:PORT`: a `MemcachedProbe`.
    - `mongodb://`, `mongodb+srv://`: a `MongoProbe`.
    - `elasticsearch://`, `opensearch://` (over HTTP; with `+https`, over TLS): an
      `ElasticsearchProbe`.
    - `s3://BUCKET`: an `S3Probe`, with the credentials that boto3 finds.
    - `smtp://`, `smtps://`, `smtp+starttls://`: an `SMTPProbe`.
    - `ldap://`, `ldaps://`: an `LDAPProbe`.
    - `amqp://`, `amqps://`: an `AMQPProbe`. `nats://`: a `NATSProbe`. `mqtt://`, `mqtts://`: an
      `MQTTProbe`. `kafka://HOST:PORT,HOST:PORT`: a `KafkaProbe`.
    - `grpc://HOST:PORT/SERVICE`, `grpcs://` for TLS; without a service the server as a whole: a
      `GRPCProbe`.
    - `postgresql://`, `mysql://`, `mariadb://`, `sqlite:///FILE`, also with a driver, as in
      `postgresql+asyncpg://`: a `SQLAlchemyProbe`. Without one, the first driver installed is used.
    - Any other scheme: what an installed package registers for it as an entry point of the group
      `healthmw.probes`, a callable that takes the URL and `timeout` and returns a probe.

    `timeout` (seconds) is the probe's own. Raises `ValueError` for a URL that is none of these, or
    is malformed, and `MissingExtraError` for a missing driver. No message holds a password.
    """
    scheme, mark, _ = url.partition("://")
    scheme = scheme.lower()
    base = scheme.partition("+")[0]
    if not mark or not _SCHEME.fullmatch(scheme):
        # Nor is it quoted: where the beginning is missing, what comes before may be a password.
        raise ValueError(f"a DSN looks like SCHEME://HOST:PORT/NAME; known are {_known()}")
    make = _OWN.get(scheme) or (_sql if base in _SQL else None)
    if make is not None:
        return make(url, timeout)
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in {scheme, base}:
            probe: Probe = entry.load()(url, timeout=timeout)
            return probe
    raise ValueError(f"there is no probe for {scheme}://; known are {_known()}")


def _known() -> str:
    others = (entry.name for entry in entry_points(group=ENTRY_POINTS))
    return ", ".join(sorted({*_OWN, *_SQL, *others}))


def _tcp(url: str, timeout: float) -> Probe:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.path.strip("/"):
        raise ValueError("a TCP address looks like tcp://HOST:PORT") from None
    return probes.TCPProbe(host, port, timeout=timeout)


def _tls(url: str, timeout: float) -> Probe:
    host, port = _place(url, "tls://HOST:PORT")
    return probes.CertificateProbe(host, port or 443, timeout=timeout)


def _dns(url: str, timeout: float) -> Probe:
    return probes.DNSProbe(_place(url, "dns://NAME", port=False)[0], timeout=timeout)


def _ntp(url: str, timeout: float) -> Probe:
    host, port = _place(url, "ntp://HOST:PORT")
    return probes.ClockProbe(host, port=port or 123, timeout=timeout)


def _place(url: str, like: str, *, port: bool = True) -> tuple[str, int | None]:
    """Return host and port of a URL that has nothing else, in words that don't quote it."""
    try:
        parts = urlsplit(url)
        found = parts.hostname, parts.port
    except ValueError:
        parts, found = urlsplit(""), (None, None)
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if not found[0] or rest or (found[1] is not None and not (port and found[1])):
        raise ValueError(f"the address looks like {like}")
    return found[0], found[1]


def _http(url: str, timeout: float) -> Probe:
    return probes.HTTPProbe(url, timeout=timeout)


def _redis(url: str, timeout: float) -> Probe:
    scheme, _, rest = url.partition("://")
    word = "unix" if scheme.lower() == "redis+socket" else scheme.lower()
    return probes.RedisProbe(f"{word}://{rest}", timeout=timeout)


def _memcached(url: str, timeout: float) -> Probe:
    return probes.MemcachedProbe(url, timeout=timeout)


def _mongo(url: str, timeout: float) -> Probe:
    return probes.MongoProbe(url, timeout=timeout)


def _elasticsearch(url: str, timeout: float) -> Probe:
    scheme, _, rest = url.partition("://")
    word = scheme.partition("+")[2].lower() or "http"
    return probes.ElasticsearchProbe(f"{word}://{rest}", timeout=timeout)


def _s3(url: str, timeout: float) -> Probe:
    bucket = url.partition("://")[2].rstrip("/")
    if not bucket or set(bucket) & set("/:@?"):
        raise ValueError("a bucket's URL looks like s3://BUCKET; boto3 finds the credentials")
    return probes.S3Probe(bucket, timeout=timeout)


def _smtp(url: str, timeout: float) -> Probe:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.path.strip("/"):
        raise ValueError(
            "a mail server's URL looks like smtp://HOST:PORT, smtps://USER:PASSWORD@HOST or"
            " smtp+starttls://USER:PASSWORD@HOST:587"
        ) from None
    return probes.SMTPProbe(
        host,
        port,
        starttls=parts.scheme == "smtp+starttls",
        tls=parts.scheme == "smtps",
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.username is None else unquote(parts.password or ""),
        timeout=timeout,
    )


def _ldap(url: str, timeout: float) -> Probe:
    return probes.LDAPProbe(url, timeout=timeout)


def _amqp(url: str, timeout: float) -> Probe:
    return probes.AMQPProbe(_lowered(url), timeout=timeout)


def _nats(url: str, timeout: float) -> Probe:
    return probes.NATSProbe(_lowered(url), timeout=timeout)


def _mqtt(url: str, timeout: float) -> Probe:
    return probes.MQTTProbe(_lowered(url), timeout=timeout)


def _kafka(url: str, timeout: float) -> Probe:
    return probes.KafkaProbe(_lowered(url), timeout=timeout)


def _grpc(url: str, timeout: float) -> Probe:
    try:
        parts = urlsplit(url)
        whole = parts.hostname and parts.port and "@" not in parts.netloc and not parts.query
    except ValueError:
        whole = False
    if not whole:
        raise ValueError("a gRPC address looks like grpc://HOST:PORT or grpc://HOST:PORT/SERVICE")
    return probes.GRPCProbe(
        parts.netloc, parts.path.strip("/"), tls=parts.scheme == "grpcs", timeout=timeout
    )


def _lowered(url: str) -> str:
    """Return `url` with its scheme in lower case, as drivers want it."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme.lower()}{mark}{rest}"


def _sql(url: str, timeout: float) -> Probe:
    return probes.SQLAlchemyProbe(engine_from_url(url), timeout=timeout)


def engine_from_url(url: str) -> Engine | AsyncEngine:
    """Return an engine for a SQL database's URL, by a driver that is installed, without a pool."""
    scheme, _, rest = url.partition("://")
    base, plus, driver = scheme.lower().partition("+")
    if base not in _SQL:
        raise ValueError(f"no SQL database is known by {base}://; known are {', '.join(_SQL)}")
    dialect, drivers = _SQL[base]
    if find_spec("sqlalchemy") is None:
        extra, brought = _EXTRAS[dialect]
        enough = not plus or f"{dialect}+{driver}" == brought
        raise MissingExtraError(f"{base}{plus}{driver}://", extra=extra if enough else "sqlalchemy")
    if not plus and drivers:
        driver = next((name for module, name in drivers.items() if find_spec(module)), "")
        if not driver:
            raise _missing(dialect, dialect)
    from sqlalchemy import NullPool, create_engine, make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        found = make_url(f"{dialect}+{driver}://{rest}" if driver else f"{dialect}://{rest}")
        # The probe has a connection of its own: nothing is to stay open beside it.
        if found.get_dialect().is_async:
            return _async_engine(found, NullPool)
        return create_engine(found, poolclass=NullPool)
    except MissingExtraError:
        raise
    except ImportError:
        raise _missing(f"{dialect}+{driver}" if driver else dialect, dialect) from None
    except NoSuchModuleError:
        raise ValueError(f"SQLAlchemy knows no driver {driver!r} for {dialect}") from None
    except (ArgumentError, ValueError):
        # Without their own words: they may quote what was taken for the port.
        raise ValueError(
            f"a DSN looks like {scheme}://HOST:PORT/NAME, with user and password before the host;"
            " special characters in the password are percent-encoded"
        ) from None


def _async_engine(url: URL, poolclass: type[Pool]) -> AsyncEngine:
    try:
        from sqlalchemy.ext.asyncio import create_async_engine
    except ImportError:  # it needs greenlet
        raise MissingExtraError(f"{url.drivername}://", extra="sqlalchemy") from None
    return create_async_engine(url, poolclass=poolclass)


def _missing(what: str, dialect: str) -> MissingExtraError:
    extra, brought = _EXTRAS[dialect]
    other = "" if what in {dialect, brought} else f" lacks its driver, and {brought}://"
    return MissingExtraError(f"{what}://{other}", extra=extra)


_OWN: dict[str, Callable[[str, float], Probe]] = {
    "tcp": _tcp,
    "tls": _tls,
    "dns": _dns,
    "ntp": _ntp,
    "elasticsearch": _elasticsearch,
    "elasticsearch+https": _elasticsearch,
    "opensearch": _elasticsearch,
    "opensearch+https": _elasticsearch,
    "memcached": _memcached,
    "mongodb": _mongo,
    "mongodb+srv": _mongo,
    "s3": _s3,
    "smtp": _smtp,
    "smtps": _smtp,
    "smtp+starttls": _smtp,
    "ldap": _ldap,
    "ldaps": _ldap,
    "http": _http,
    "https": _http,
    "redis": _redis,
    "rediss": _redis,
    "redis+cluster": _redis,
    "redis+sentinel": _redis,
    "redis+socket": _redis,
    "rediss+cluster": _redis,
    "rediss+sentinel": _redis,
    "unix": _redis,
    "amqp": _amqp,
    "amqps": _amqp,
    "nats": _nats,
    "mqtt": _mqtt,
    "mqtts": _mqtt,
    "kafka": _kafka,
    "grpc": _grpc,
    "grpcs": _grpc,
}
