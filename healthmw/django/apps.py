"""The Django app."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.checks import register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import autodiscover_modules

__all__ = ("HealthConfig",)


class HealthConfig(AppConfig):
    """Finds the modules `health.py` of all apps, and has the settings checked."""

    name = "healthmw.django"
    label = "healthmw"
    verbose_name: Any = "Health checks"

    def ready(self) -> None:
        """Set up, once all apps are loaded."""
        from healthmw.django import _settings
        from healthmw.django._checks import check_settings

        register(check_settings)
        try:
            _settings.project_health()
        except (ImproperlyConfigured, ImportError):
            return  # `manage.py check` says so, and better than each module that uses it
        autodiscover_modules("health")
