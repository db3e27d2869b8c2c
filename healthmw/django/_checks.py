"""What `manage.py check` says of the settings."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured

from healthmw.django import _settings
from healthmw.django._middleware import HealthMiddleware

_MIDDLEWARE = "healthmw.django.HealthMiddleware"


def check_settings(**_: Any) -> list[CheckMessage]:
    """Return what is wrong with `HEALTHMW` and with the place of the middleware."""
    found: list[CheckMessage] = []
    try:
        HealthMiddleware(lambda request: request)
        _settings.project_health().validate()
    except (ImproperlyConfigured, ImportError, ValueError) as exc:
        found.append(Error(str(exc), id="healthmw.E001"))
    middleware = list(settings.MIDDLEWARE)
    if _MIDDLEWARE in middleware and middleware[0] != _MIDDLEWARE:
        found.append(
            CheckWarning(
                f"{_MIDDLEWARE} is not the first in MIDDLEWARE.",
                hint=f"Put it before {middleware[0]}: what stands before it may refuse or redirect "
                "a load balancer.",
                id="healthmw.W001",
            )
        )
    return found
