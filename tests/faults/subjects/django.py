"""A Django project's database and cache, by its settings."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from tests.faults.databases import PostgreSQLSubject
from tests.faults.subjects.redis import RedisSubject

if TYPE_CHECKING:
    from healthmw._probe import Probe
    from tests.faults.subject import Address

_numbers = itertools.count()


def _alias(setting: str, connections: Any, options: dict[str, Any]) -> str:
    """Add to DATABASES or CACHES what is probed next, and return its alias."""
    from django.conf import settings

    alias = f"number{next(_numbers)}"
    known = {**getattr(settings, setting), alias: options}
    setattr(settings, setting, known)
    connections.settings = connections.configure_settings(known)
    return alias


def _set_up() -> None:
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(DATABASES={"default": {}}, CACHES={})
        django.setup()


class Database(PostgreSQLSubject):
    """By psycopg, which is what Django uses."""

    name = "`DatabaseProbe` of Django, psycopg"

    def probe(self, at: Address, timeout: float) -> Probe:
        _set_up()
        from django.db import connections

        from healthmw.django.probes import DatabaseProbe

        options = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": self.server.user,
            "PASSWORD": at.password,
            "HOST": at.host,
            "PORT": at.port,
            "OPTIONS": self.libpq(at),
        }
        return DatabaseProbe(_alias("DATABASES", connections, options), timeout=timeout)


class Cache(RedisSubject):
    """By Django's own backend for Redis."""

    name = "`CacheProbe` of Django, Redis"

    def probe(self, at: Address, timeout: float) -> Probe:
        _set_up()
        from django.core.cache import caches

        from healthmw.django.probes import CacheProbe

        scheme = "redis" if at.ca is None else "rediss"
        options: dict[str, Any] = {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"{scheme}://:{at.password}@{at.host}:{at.port}/0",
            "OPTIONS": {"socket_timeout": timeout, "socket_connect_timeout": timeout},
        }
        if at.ca is not None:
            options["OPTIONS"]["ssl_ca_certs"] = str(at.ca)
        return CacheProbe(_alias("CACHES", caches, options))
