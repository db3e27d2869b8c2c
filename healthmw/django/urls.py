"""Routes, for projects that want no middleware: `path("", include("healthmw.django.urls"))`."""

from __future__ import annotations

import re

from django.urls import URLPattern, re_path

from healthmw.django import _settings
from healthmw.django._views import health_view

__all__ = ("urlpatterns",)

_mounting = _settings.mounting()
_path = re.escape(_mounting.pop("path", "/health_check").strip("/"))

urlpatterns: list[URLPattern] = [
    re_path(
        rf"^{_path}(?:/(?P<name>[^/]+))?/?$",
        health_view(_settings.project_health(), **_mounting),
        name="health_check",
    )
]
