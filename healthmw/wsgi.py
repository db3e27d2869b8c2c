"""WSGI: the middleware, and the endpoint as an app of its own."""

from __future__ import annotations

import sys
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from healthmw._drain import DRAINER
from healthmw._fork import notice
from healthmw._http import Endpoint
from healthmw._request import Request, caller_of_environ, words_of_environ
from healthmw._response import refusal, unavailable
from healthmw.exceptions import DependencyUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from healthmw._health import Health
    from healthmw.access import Authorizer

__all__ = ("HealthApp", "HealthMiddleware")


class HealthMiddleware:
    """Answer at `path` whether the app is ready, and let everything else through untouched.

    `app` is any WSGI app. Probes run in threads and on an event loop of healthmw's own, which each
    worker process starts with the first request at `path`: after `fork`, whatever the server.

    `show` is what anyone may see: `"summary"` (the verdict alone), `"names"` (names and reason
    codes, too) or `"full"`. `authorize` lifts a caller to `"full"`: a `healthmw.access.Token`, a
    `healthmw.access.Networks`, a function of your own, or a list of these.

    `drain_delay` (seconds) is for how long the app goes on serving after a SIGTERM, while `ready`
    fails for the reason `draining` and `live` does not; then the server shuts down as ever. A
    second SIGTERM cuts it short. It needs a server that handles SIGTERM in the main thread.

    A `DependencyUnavailable` that the app raises, or the generator that it returns, becomes a 503,
    with `Retry-After` where it is known when to try again, unless the response has begun. Raises
    `ValueError` for a `path` that is no path.
    """

    def __init__(
        self,
        app: WSGIApplication,
        health: Health,
        *,
        path: str = "/health_check",
        show: str = "names",
        authorize: Authorizer | Iterable[Authorizer] | None = None,
        drain_delay: float | None = None,
    ) -> None:
        self.app = app
        self.health = health
        self._endpoint = Endpoint(health, path, show=show, authorize=authorize, sync=True)
        self._drains = DRAINER.add(health, drain_delay)
        if self._drains:
            DRAINER.arm(again=True)
        self._path = self._endpoint.path

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        try:
            path = environ["PATH_INFO"]
        except KeyError:  # a server may leave out what is empty (PEP 3333)
            path = ""
        if self._path in path:
            rest = self._endpoint.rest_of(path)
            if rest is not None:
                return _answer(self._endpoint, environ, start_response, rest, drains=self._drains)
        try:
            body = self.app(environ, start_response)
        except (DependencyUnavailable, BaseExceptionGroup) as exc:
            return _apologise(exc, environ, start_response)
        if body.__class__ is GeneratorType:  # an app that is one has not even begun
            return _guarded(body, environ, start_response)
        return body


class HealthApp:
    """The endpoint as a WSGI app: to be mounted in another app, or served alone.

    It answers relative to where it is mounted (`SCRIPT_NAME`), and at `path` as well. The options
    are those of `HealthMiddleware`.
    """

    def __init__(
        self,
        health: Health,
        *,
        path: str = "/health_check",
        show: str = "names",
        authorize: Authorizer | Iterable[Authorizer] | None = None,
        drain_delay: float | None = None,
    ) -> None:
        self.health = health
        self._endpoint = Endpoint(health, path, show=show, authorize=authorize, sync=True)
        self._drains = DRAINER.add(health, drain_delay)
        if self._drains:
            DRAINER.arm(again=True)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        rest = self._endpoint.mounted_rest_of(environ.get("PATH_INFO", ""))
        return _answer(self._endpoint, environ, start_response, rest, drains=self._drains)


def _answer(
    endpoint: Endpoint,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    rest: str,
    *,
    drains: bool,
) -> Iterable[bytes]:
    if drains:
        DRAINER.arm()  # where the app was made before the server set its handler, or before a fork
    notice()
    words, if_none_match = words_of_environ(environ, rest)
    response = endpoint.prepared(words, if_none_match)
    if response is None:
        response = endpoint.answer_sync(
            Request(*words, if_none_match), partial(caller_of_environ, environ)
        )
    start_response(response.status_line, list(response.headers))
    return [response.body]


def _apologise(
    error: BaseException, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer 503 for `error`, which is being handled, or raise it again.

    Where the headers are out, the server does that (PEP 3333).
    """
    refused = refusal(error)
    if refused is None:
        raise error
    response = unavailable(refused, environ["REQUEST_METHOD"])
    start_response(response.status_line, list(response.headers), sys.exc_info())
    return [response.body]


def _guarded(
    body: GeneratorType[bytes, Any, Any], environ: WSGIEnvironment, start_response: StartResponse
) -> Iterator[bytes]:
    try:
        yield from body
    except (DependencyUnavailable, BaseExceptionGroup) as exc:
        yield from _apologise(exc, environ, start_response)
