"""The `HEALTHMW` setting, and the project's `Health` that is made of it."""

from __future__ import annotations

import functools
from inspect import signature
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from healthmw._health import Health

DEFAULT_CHECKS = ("databases", "caches", "migrations")
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
    known = [*signature(Health).parameters, "health", "checks", *_MOUNTING]
    for key in options:
        if key not in known:
            raise ImproperlyConfigured(f"HEALTHMW: no key {key!r}, only {', '.join(known)}")
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
    if "databases" in chosen:
        for alias in settings.DATABASES:
            health.add(_named("database", alias), DatabaseProbe(alias))
    if "caches" in chosen:
        for alias in settings.CACHES:
            health.add(_named("cache", alias), CacheProbe(alias))
    if "migrations" in chosen:
        for alias in settings.DATABASES:
            # Reading all migrations takes a while, and they don't change often.
            health.add(_named("migrations", alias), MigrationsProbe(alias), max_age=10.0)


def _named(what: str, alias: str) -> str:
    return what if alias == "default" else f"{what}.{alias}"
