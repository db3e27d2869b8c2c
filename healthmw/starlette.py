"""Starlette: the middleware, routes for apps that want no middleware, and an exception handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from healthmw._response import refusal, unavailable
from healthmw.asgi import HealthApp, HealthMiddleware
from healthmw.exceptions import MissingExtraError

try:
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError as _exc:
    raise MissingExtraError("healthmw.starlette", extra="starlette") from _exc

if TYPE_CHECKING:
    from starlette.requests import Request

    from healthmw._health import Health

__all__ = ("HealthApp", "HealthMiddleware", "dependency_unavailable", "health_routes")


def health_routes(health: Health, *, path: str = "/health_check", **options: Any) -> list[Route]:
    """Return routes that answer at `path` and below it.

    `options` are those of `HealthMiddleware`. Unlike the middleware, routes come after the app's
    own middleware (host check, redirects, sessions), and the lifespan is the app's own: start and
    stop background checks there, with `async with health`.
    """
    app = HealthApp(health, path=path, **options)
    path = path.rstrip("/")
    return [
        Route(path, endpoint=app, name="health"),
        Route(f"{path}/{{rest:path}}", endpoint=app, name="health_below"),
    ]


async def dependency_unavailable(request: Request, exc: Exception) -> Response:
    """Answer 503 for a `DependencyUnavailable`, inside of the app.

    For `exception_handlers=`: `{DependencyUnavailable: dependency_unavailable}`, and likewise for
    `ExceptionGroup` where task groups make calls. With it, the app's own middleware sees the
    response, which it does not where the middleware answers.
    """
    refused = refusal(exc)
    if refused is None:
        raise exc
    answer = unavailable(refused, request.method)
    return Response(answer.body, answer.status, headers=dict(answer.headers))
