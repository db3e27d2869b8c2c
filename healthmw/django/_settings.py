"""The `HEALTHMW` setting, and the project's `Health` that is made of it."""

from __future__ import annotations

import functools
from inspect import signature
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string

from healthmw._health import Health

if TYPE_CHECKING:
    from healthmw._probe import Probe

DEFAULT_CHECKS = ("databases", "caches", "migrations")
_NO_DATABASE = "django.db.backends.dummy"  # what Django makes of an entry without ENGINE
_NO_CACHE = "django.core.cache.backends.dummy.DummyCache"
_MOUNTING = ("path", "show", "authorize", "drain_delay")


def read() -> dict[str, Any]:
    """Return the setting. Raises `ImproperlyConfigured` where it is no dict."""
    found = getattr(settings, "HEALTHMW", {})
    if not isinstance(found, dict):
        raise ImproperlyConfigured(f"HEALTHMW must be a dict, not {type(found).__name__}")
    return found


def mounting() -> dict[str, Any]:
    """Return the options of the middleware: `path`, `show`, `authorize` and `drain_delay`."""
    return {name: value for name, value in read().items() if name in _MOUNTING}


@functools.cache
def project_health() -> Health:
    """Return the project's `Health`, made on first use.

    `HEALTHMW["health"]` names one of the project's own ("shop.health.health"). Else it is made of
    the options of `Health` in the setting, and has the checks that `HEALTHMW["checks"]` lists:
    `databases`, `caches`, `migrations`; all three where nothing is said.
    """
    options = {name: value for name, value in read().items() if name not in _MOUNTING}
    known = [*signature(Health).parameters, "health", "checks", *_MOUNTING]
    for key in options:
        if key not in known:
            raise ImproperlyConfigured(f"HEALTHMW: no key {key!r}, only {', '.join(known)}")
    own = options.pop("health", None)
    chosen = options.pop("checks", DEFAULT_CHECKS)
    if own is not None:
        if options:
            raise ImproperlyConfigured(
                f"HEALTHMW['health'] names a Health, so {min(options)!r} must be given to it"
            )
        health = import_string(own) if isinstance(own, str) else own
        if not isinstance(health, Health):
            raise ImproperlyConfigured(f"HEALTHMW['health'] is {own!r}, which is no Health")
        return health
    try:
        health = Health(**options)
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"HEALTHMW: {exc}") from exc
    _add_defaults(health, chosen)
    return health


def _add_defaults(health: Health, chosen: object) -> None:
    from healthmw.django.probes import CacheProbe, DatabaseProbe, MigrationsProbe

    if isinstance(chosen, str) or not isinstance(chosen, list | tuple | set | frozenset):
        raise ImproperlyConfigured(f"HEALTHMW['checks'] must list names, not {chosen!r}")
    unknown = [name for name in chosen if name not in DEFAULT_CHECKS]
    if unknown:
        known = ", ".join(DEFAULT_CHECKS)
        raise ImproperlyConfigured(f"HEALTHMW['checks']: no {unknown[0]!r}, only {known}")
    databases = [name for name, it in connections.settings.items() if it["ENGINE"] != _NO_DATABASE]
    if "databases" in chosen:
        for alias in databases:
            _add(health, "DATABASES", _named("database", alias), DatabaseProbe(alias))
    if "caches" in chosen:
        for alias, cache in caches.settings.items():
            if cache.get("BACKEND") != _NO_CACHE:
                _add(health, "CACHES", _named("cache", alias), CacheProbe(alias))
    if "migrations" in chosen:
        for alias in databases:
            # Reading all migrations takes a while, and they don't change often.
            name = _named("migrations", alias)
            _add(health, "DATABASES", name, MigrationsProbe(alias), max_age=10.0)


def _add(health: Health, setting: str, name: str, probe: Probe, **policy: Any) -> None:
    try:
        health.add(name, probe, **policy)
    except ValueError as exc:
        raise ImproperlyConfigured(f"{setting}: {exc}") from exc


def _named(what: str, alias: str) -> str:
    return what if alias == "default" else f"{what}.{alias}"
