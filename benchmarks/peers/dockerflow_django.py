"""dockerflow's middleware for Django, by WSGI."""

from benchmarks._checks import DSN, checks
from benchmarks.peers import _django

_django.set_up(
    __name__,
    "dockerflow.django",
    middleware=["dockerflow.django.middleware.DockerflowMiddleware"],
    DOCKERFLOW_CHECKS=["dockerflow.django.checks.check_database_connected"] if DSN else [],
)

from django.core.checks import register  # noqa: E402 - Django wants its settings first
from django.core.checks.registry import registry  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import re_path  # noqa: E402


def _as_django_has_it(name, check):
    def run(app_configs, **kwargs):
        check()
        return []

    run.__name__ = name
    return run


registry.registered_checks.clear()  # Django's own look at the settings
if DSN:
    from dockerflow.django.checks import check_database_connected

    register(check_database_connected)
else:
    for _name, _check in checks().items():
        register(_as_django_has_it(_name, _check))

urlpatterns = [re_path("", lambda request: HttpResponse("hello"))]
wsgi = get_wsgi_application()
