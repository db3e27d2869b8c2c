"""Django: an app with middleware, default checks, a view, a command and system checks.

    INSTALLED_APPS = [..., "healthmw.django"]
    MIDDLEWARE = ["healthmw.django.HealthMiddleware", ...]  # before any host check or redirect

A module `health.py` in any installed app is imported at start-up, to register checks of its own:

    from healthmw.django import health

    @health.probe("warehouse", critical=False)
    def warehouse() -> None: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from healthmw.exceptions import MissingExtraError

try:
    import django as _django  # noqa: F401 - to say which extra is missing
except ImportError as _exc:
    raise MissingExtraError("healthmw.django", extra="django") from _exc

from healthmw.django._middleware import HealthMiddleware
from healthmw.django._views import health_view

if TYPE_CHECKING:
    from healthmw._health import Health

    health: Health
    """The project's `Health`, made of the settings on first use."""

__all__ = ("HealthMiddleware", "health", "health_view")

for _public in (HealthMiddleware, health_view):
    _public.__module__ = __name__  # what messages and the documentation name is what to import


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name != "health":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from healthmw.django._settings import project_health

        return project_health()
