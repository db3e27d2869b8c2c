"""Starlette: the middleware, routes for apps that want no middleware, and an exception handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from healthmw._response import refusal, unavailable
from healthmw.asgi import HealthApp, HealthMiddleware
from healthmw.exceptions import MissingExtraError

try:
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.websockets import WebSocket, WebSocketState
except ImportError as _exc:
    raise MissingExtraError("healthmw.starlette", extra="starlette") from _exc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import HTTPConnection

    from healthmw._health import Health
    from healthmw.access import Authorizer

__all__ = ("HealthApp", "HealthMiddleware", "dependency_unavailable", "health_routes")

_TRY_AGAIN_LATER = 1013  # of IANA's registry of WebSocket close codes


def health_routes(
    health: Health,
    *,
    path: str = "/health_check",
    show: str = "names",
    authorize: Authorizer | Iterable[Authorizer] | None = None,
    drain_delay: float | None = None,
) -> list[Route]:
    """Return routes that answer at `path` and below it.

    The options are those of `HealthMiddleware`, but for `startup_timeout`: no start-up comes by
    here. Unlike the middleware, routes come after the app's own middleware (host check, redirects,
    sessions), and the lifespan is the app's own: start and stop background checks there, with
    `async with health`.
    """
    app = HealthApp(health, path=path, show=show, authorize=authorize, drain_delay=drain_delay)
    path = path.rstrip("/")
    return [
        Route(path, endpoint=app, name="health"),
        Route(f"{path}/{{rest:path}}", endpoint=app, name="health_below"),
    ]


async def dependency_unavailable(request: HTTPConnection, exc: Exception) -> Any:
    """Answer 503 for a `DependencyUnavailable`, inside of the app.

    For `exception_handlers=`: `{DependencyUnavailable: dependency_unavailable}`, and likewise for
    `ExceptionGroup` where task groups make calls. With it, the app's own middleware sees the
    response, which it does not where the middleware answers. A WebSocket gets the 503 before it is
    accepted, where the server can send one, and after that it is closed with code 1013: try again.
    """
    refused = refusal(exc)
    if refused is None:
        raise exc
    answer = unavailable(refused, request.scope.get("method", "GET"))
    response = Response(answer.body, answer.status, headers=dict(answer.headers))
    if not isinstance(request, WebSocket):
        return response
    connecting = request.application_state is WebSocketState.CONNECTING
    if connecting and "websocket.http.response" in request.scope.get("extensions", {}):
        await request.send_denial_response(response)
    else:
        await request.close(_TRY_AGAIN_LATER)
    return None
