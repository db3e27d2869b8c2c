"""The middleware, for sync and async Django alike."""

from __future__ import annotations

from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from asgiref.sync import markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured

from healthmw._drain import DRAINER
from healthmw._http import Endpoint
from healthmw._request import Request, caller_of_environ, words_of_environ
from healthmw._response import refusal, unavailable
from healthmw.django import _settings
from healthmw.django._views import as_django

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse


__all__ = ("HealthMiddleware",)


class HealthMiddleware:
    """Answer at `HEALTHMW["path"]` (`/health_check`) before Django's own handling begins.

    To be the first in MIDDLEWARE: then no host check, redirect or session comes before it. It
    answers for the project's `Health`, `healthmw.django.health`. The other options of the
    `HEALTHMW` setting are those of `Health` and of `healthmw.wsgi.HealthMiddleware`.

    A `DependencyUnavailable` that a view raises becomes a 503 with `Retry-After`; a middleware of
    the project's own, further down, may answer it before.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        health = _settings.project_health()
        options: dict[str, Any] = {"path": "/health_check", **_settings.mounting()}
        delay = options.pop("drain_delay", None)
        try:
            self._endpoint = Endpoint(health, **options, sync=not self._is_async)
            self._drains = DRAINER.add(health, delay)
        except (TypeError, ValueError) as exc:
            raise ImproperlyConfigured(f"HEALTHMW: {exc}") from exc
        if self._drains:
            DRAINER.arm(again=True)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request: return the response, or for async Django what to await."""
        rest = self._endpoint.rest_of(request.path_info)
        if rest is None:
            return self._get_response(request)
        if self._drains:
            DRAINER.arm()  # where Django was set up before the server's handler, or before a fork
        words, if_none_match = words_of_environ(request.META, rest)
        asked = Request(*words, if_none_match)
        caller = partial(caller_of_environ, request.META, request)
        if self._is_async:
            return self._answer(asked, caller)
        return as_django(self._endpoint.answer_sync(asked, caller))

    async def _answer(self, asked: Any, caller: Any) -> HttpResponse:
        return as_django(await self._endpoint.answer(asked, caller))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer for a view that needed what is unavailable."""
        refused = refusal(exception)
        if refused is None:
            return None
        return as_django(unavailable(refused, request.method or "GET"))
