"""Databases of the tests as Django knows them, and its probe of one that a DSN names."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.db import connections

from healthmw.django.probes import DatabaseProbe
from tests import django_project  # noqa: F401 - configures Django
from tests.services.servers import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.servers import PostgreSQL


def by_django(dsn: str, **options: Any) -> DatabaseProbe:
    """Add the database to Django's, and return the probe of it."""
    parts = urlsplit(dsn)
    alias = str(parts.port)
    connections.settings[alias] = connections.configure_settings(
        {
            "default": {},
            alias: {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts.path[1:],
                "USER": parts.username,
                "PASSWORD": parts.password,
                "HOST": parts.hostname,
                "PORT": parts.port,
            },
        }
    )[alias]
    return DatabaseProbe(alias, **options)


def settings_of(server: PostgreSQL, name: str) -> dict[str, Any]:
    """Return Django's settings of a server's database; its connections go by `name`."""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": server.user,
        "PASSWORD": PASSWORD,
        "HOST": "127.0.0.1",
        "PORT": server.port,
        "OPTIONS": {"application_name": name},
    }


@contextmanager
def no_database_left() -> Iterator[None]:
    """Forget in the end the databases that were added."""
    before = dict(connections.settings)
    yield
    connections.settings = before
