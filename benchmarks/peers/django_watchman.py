"""django-watchman, by WSGI."""

import sys

from benchmarks._checks import DSN, checks
from benchmarks.peers import _django

_this = sys.modules[__name__]


def _as_watchman_has_it(name, check):
    def run():
        check()
        return {name: {"ok": True}}

    return run


_names = []
if DSN:
    _names.append("watchman.checks.databases")
else:
    for _name, _check in checks().items():
        setattr(_this, _name, _as_watchman_has_it(_name, _check))
        _names.append(f"{__name__}.{_name}")

_django.set_up(__name__, "watchman", WATCHMAN_CHECKS=tuple(_names))

from django.core.wsgi import get_wsgi_application  # noqa: E402 - Django wants its settings first
from django.urls import path  # noqa: E402
from watchman import views  # noqa: E402

urlpatterns = [path("health_check", views.status)]
wsgi = get_wsgi_application()
