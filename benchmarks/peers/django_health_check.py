"""django-health-check, by ASGI and by WSGI."""

import dataclasses
import datetime as dt

from benchmarks._checks import DSN, HANGS, KIND, checks
from benchmarks.peers import _django

_django.set_up(__name__, "health_check")

from django.core.asgi import get_asgi_application  # noqa: E402 - Django wants its settings first
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402
from health_check.base import HealthCheck  # noqa: E402
from health_check.views import HealthCheckView  # noqa: E402


def _class_of(name, check):
    async def run(self):
        await check()

    def run_sync(self):
        check()

    members = {"run": run if KIND == "async" else run_sync}
    if HANGS:
        members["timeout"] = dt.timedelta(seconds=1)
    return dataclasses.dataclass(type(name, (HealthCheck,), members))


CHECKS = (
    ["health_check.checks.Database"] if DSN else [_class_of(*item) for item in checks().items()]
)
urlpatterns = [path("health_check", HealthCheckView.as_view(checks=CHECKS))]
asgi = get_asgi_application()
wsgi = get_wsgi_application()
