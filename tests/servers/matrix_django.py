"""The Django project of the server matrix, and its `manage.py`."""

from __future__ import annotations

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.servers.matrix_checks import hello, make

health = make()


def answer(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(hello())


urlpatterns = [path("hello", answer)]

if __name__ == "__main__":
    settings.configure(
        DEBUG=True,
        SECRET_KEY="not one",
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["nobody"],  # the endpoint answers before it is looked at
        INSTALLED_APPS=["healthmw.django"],
        MIDDLEWARE=["healthmw.django.HealthMiddleware"],
        HEALTHMW={"health": health},
    )
    execute_from_command_line(sys.argv)
