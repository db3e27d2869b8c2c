"""A Django project with settings that keep out whoever does not come by its name and by HTTPS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path, re_path

from healthmw import Health
from healthmw.django import health_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw.access import Caller

HOST = "shop.example"

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=[HOST],
        SECRET_KEY="not a secret",
        SECURE_SSL_REDIRECT=True,
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        SESSION_SAVE_EVERY_REQUEST=True,
        APPEND_SLASH=True,
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[
            f"{__name__}.nosy",
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
        ],
        LOGGING_CONFIG=None,
    )
    django.setup()

seen: list[str] = []
"""The path of each request that reached Django."""


def nosy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        seen.append(request.path)
        return get_response(request)

    return middleware


class Switch:
    """A probe that is told what to do."""

    fails = False

    def __call__(self) -> None:
        if self.fails:
            raise OSError("a secret detail")


database = Switch()
health = Health(release="v42", max_age=0)
health.add("database", database)


def home(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = 1
    return HttpResponse("home")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter([b"a", b"b"]))


def is_staff(caller: Caller) -> bool:
    request: HttpRequest = caller.raw
    return request.GET.get("user") == "staff" and caller.peer == "127.0.0.1"


urlpatterns = [
    path("", home),
    path("stream/", stream),
    path("up/", health_view(health)),
    re_path(r"^status(?:/(?P<name>[^/]+))?/?$", health_view(health)),
    path("staff/", health_view(health, show="summary", authorize=is_staff)),
]
