"""Options and DSNs that are made up: each is taken, or refused in words that name what is wrong."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from hypothesis import event, given
from hypothesis import strategies as st

from healthmw import Check, CircuitBreaker, Health, asgi, wsgi
from healthmw.django import _settings as django_settings
from healthmw.exceptions import MissingExtraError
from healthmw.probes import probe_from_dsn
from healthmw.testing import ScriptedProbe
from tests import django_project  # noqa: F401 - configures Django
from tests.abuse.effort import tries
from tests.services.servers import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterable

# DSNs

SCHEMES = [
    "tcp", "tls", "dns", "ntp", "http", "https", "redis", "rediss", "unix", "redis+socket",
    "redis+cluster", "redis+sentinel", "memcached", "mongodb", "mongodb+srv", "elasticsearch",
    "opensearch+https", "s3", "smtp", "smtps", "smtp+starttls", "ldap", "ldaps", "amqp", "amqps",
    "nats", "mqtt", "mqtts", "kafka", "grpc", "grpcs", "postgresql", "postgres", "mysql", "mariadb",
    "sqlite", "postgresql+psycopg", "postgresql+asyncpg", "mysql+pymysql", "mysql+asyncmy",
    "sqlite+aiosqlite", "postgresql+none", "mysql+", "gopher", "", "+", "REDIS", "x y", "\x00",
]  # fmt: skip
odd = st.one_of(
    st.sampled_from(
        ["", ":", "/", "//", "@", "[", "]", "[::1]", "[::1", "%", "%zz", "%00", "\x00", "\r\n", ","]
    ),
    st.text(max_size=12),
)
hosts = st.one_of(
    st.sampled_from(
        ["db", f"db:{PASSWORD}", "127.0.0.1", "[::1]", "one,two:7", "a:1,b:2", "ü.example"]
    ),
    odd,
)
ports = st.one_of(
    st.just(""),
    st.integers(-2, 70000).map(lambda number: f":{number}"),
    st.sampled_from([":", ":x", ":1e3", ":٣", ":99999999999999999999"]),
    odd.map(lambda text: f":{text}"),
)
logins = st.sampled_from([
    "", f"ann:{PASSWORD}@", f":{PASSWORD}@", f"ann:{PASSWORD}/x@", f"ann:{PASSWORD}#@",
    f"ann:{PASSWORD}%zz@", f"ann:@{PASSWORD}@", f"ann:[{PASSWORD}@", f"ann:{PASSWORD}?x@",
])  # fmt: skip
paths = st.one_of(
    st.sampled_from(["", "/", "/0", "/shop", "/x/y", "/%2F", "/-1", "/1e9", "//"]),
    odd.map(lambda text: f"/{text}"),
)
names = st.one_of(
    st.sampled_from([
        "timeout", "db", "ssl", "sslmode", "ssl_ca", "connect_timeout", "charset", "authSource",
        "replicaSet", "tls", "heartbeat", "frame_max", "plugin", "password", "protocol", "unix",
        "socket_timeout", "max_connections", "decode_responses", "host", "port", "odbc_connect",
        "readConcernLevel", "authMechanism", "compressors", "directConnection", "w",
        "check_same_thread",
    ]),
    odd,
)  # fmt: skip
values = st.one_of(
    st.sampled_from(
        ["", "1", "0", "-1", "true", "x", "1e999", "nan", PASSWORD, f"http://{PASSWORD}"]
    ),
    odd,
)
queries = st.lists(st.tuples(names, values), max_size=3).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
dsns = st.one_of(
    st.builds(
        lambda scheme, login, host, port, path, query: (
            f"{scheme}://{login}{host}{port}{path}" + (f"?{query}" if query else "")
        ),
        st.sampled_from(SCHEMES),
        logins,
        hosts,
        ports,
        paths,
        queries,
    ),
    # What is left of one when its beginning was lost.
    st.builds(
        lambda login, host, query: f"{login}{host}/shop?{query}&next=http://x",
        logins,
        hosts,
        queries,
    ),
    st.text(max_size=40),
)


def what_is_said_of(dsn: str) -> str:
    try:
        probe = probe_from_dsn(dsn)
    except MissingExtraError as exc:
        event("an extra is missing")
        return f"{exc} {exc!r}"
    except ValueError as exc:
        event("refused")
        said = f"{exc} {exc!r}"
        assert len(said) < 4000
        cause: BaseException | None = exc
        while cause is not None:  # a traceback shows these, unless they are hidden
            said += f"{cause} {cause!r}"
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        return said
    event("taken")
    assert callable(probe)
    return repr(probe)


@tries(1500)
@given(dsn=dsns)
def test_a_dsn_is_a_probe_or_a_value_error_that_keeps_the_secret(dsn: str) -> None:
    with warnings.catch_warnings(record=True) as warned:  # as drivers do, of unknown options
        warnings.simplefilter("always")
        said = what_is_said_of(dsn)
    said += "".join(str(warning.message) for warning in warned)
    # In the place of the host, of the database's name and the like, it is no password.
    if f":{PASSWORD}" in dsn and "@" in dsn:
        assert PASSWORD not in said
        assert quote(PASSWORD) not in said


# Options

numbers = st.one_of(
    st.integers(-3, 10**6),
    st.sampled_from([0, 10**12, 10**30, 10**400, -(10**400), True, False]),
    st.floats(),
)
anything = st.one_of(
    numbers, st.none(), st.text(max_size=5), st.binary(max_size=3), st.just(()), st.just({}),
    st.builds(object),
)  # fmt: skip
mostly_sane = st.one_of(st.sampled_from([1, 2, 0.5, 1.0, 3.5, None]), anything)
texts = st.one_of(st.sampled_from(["database", "ready", "", "a/b", "ü", "a" * 65]), anything)

HEALTH = {"max_age": mostly_sane, "deadline": mostly_sane, "release": texts, "service": texts}
ADD = {
    "critical": anything,
    "timeout": mostly_sane,
    "max_age": mostly_sane,
    "failure_max_age": mostly_sane,
    "per_hour": mostly_sane,
    "interval": mostly_sane,
    "stale_after": mostly_sane,
    "failure_threshold": mostly_sane,
    "success_threshold": mostly_sane,
    "groups": st.one_of(st.just(["live"]), st.lists(texts, max_size=2), anything),
    "passive": anything,
    "description": texts,
}
BREAKER = dict.fromkeys(
    [
        "consecutive_failures", "window_calls", "window_seconds", "minimum_calls", "failure_rate",
        "slow_call_duration", "slow_call_rate", "half_open_calls", "half_open_max_wait", "open_for",
        "backoff", "open_for_max", "jitter",
    ],
    mostly_sane,
)  # fmt: skip
MOUNT = {"path": texts, "show": texts, "drain_delay": mostly_sane, "authorize": anything}


def few(options: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.lists(st.sampled_from(sorted(options)), max_size=3, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: options[name] for name in chosen})
    )


def blames(error: BaseException, options: Iterable[str]) -> None:
    """See that `error` names one of the options."""
    assert any(name in str(error) for name in options), error


@tries(600)
@given(options=few(HEALTH))
def test_a_health_takes_its_options_or_names_the_wrong_one(options: dict[str, Any]) -> None:
    try:
        health = Health(**options)
    except ValueError as exc:
        blames(exc, options)
        return
    health.add("database", ScriptedProbe())
    assert health.run_sync().results["database"].measurements == {}
    assert anyio.run(health.run).results["database"].measurements == {}


@tries(800)
@given(name=st.one_of(st.just("database"), texts), options=few(ADD))
def test_a_check_takes_its_options_or_names_the_wrong_one(
    name: Any, options: dict[str, Any]
) -> None:
    health = Health()
    try:
        check = health.add(name, ScriptedProbe(), **options)
    except ValueError as exc:
        blames(exc, options | {"name": name})
        assert not health.checks
        return
    assert isinstance(check, Check)
    for figure in (check.timeout, check.max_age, check.spacing):
        assert math.isfinite(figure)
    if check.timeout > 0.4 and check.interval is None:
        report = health.run_sync(name)
        assert report.ok


@tries(800)
@given(options=few(BREAKER))
def test_a_breaker_takes_its_options_or_names_the_wrong_one(options: dict[str, Any]) -> None:
    try:
        breaker = CircuitBreaker(**options)
    except ValueError as exc:
        blames(exc, options)
        return
    for _ in range(30):
        permit = breaker.try_acquire()
        if permit is None:
            break
        permit.failure()
    assert breaker.snapshot().total_failures >= 1
    assert breaker.retry_after is None or breaker.retry_after >= 0
    breaker.reset()
    assert breaker.available


async def _asgi_app(*_: Any) -> None: ...


@tries(400)
@given(options=few(MOUNT))
def test_a_middleware_takes_its_options_or_names_the_wrong_one(options: dict[str, Any]) -> None:
    options.pop("drain_delay", None)  # it would lay a hand on this process's SIGTERM
    for make, app in ((asgi.HealthMiddleware, _asgi_app), (wsgi.HealthMiddleware, _asgi_app)):
        try:
            make(app, Health(), **options)  # type: ignore[arg-type]  # never called
        except ValueError as exc:
            blames(exc, options)


SETTING = {
    **HEALTH,
    "checks": st.one_of(st.just(["caches"]), st.lists(texts, max_size=2), anything),
    "health": st.one_of(st.just("no.such.thing"), st.builds(Health), anything),
    "misspelt": anything,
}


@tries(400)
@given(setting=st.one_of(few(SETTING), anything))
def test_djangos_setting_is_taken_or_found_fault_with(setting: Any) -> None:
    django_settings.project_health.cache_clear()
    try:
        with override_settings(HEALTHMW=setting):
            health = django_settings.project_health()
    except ImproperlyConfigured as exc:
        blames(exc, ["HEALTHMW"])
    except ImportError:  # as Django's own settings have it
        assert isinstance(setting["health"], str)
    else:
        assert isinstance(health, Health)
    finally:
        django_settings.project_health.cache_clear()
