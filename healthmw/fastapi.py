"""FastAPI: the middleware, a router that shows in OpenAPI, a dependency, an exception handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from healthmw._check import Check
from healthmw._options import WrongTypeError
from healthmw._response import UNAVAILABLE, retry_after
from healthmw.asgi import HealthApp, HealthMiddleware
from healthmw.exceptions import DependencyUnavailable, MissingExtraError
from healthmw.render import health_json

try:
    from fastapi import APIRouter, HTTPException, Response
except ImportError as _exc:
    raise MissingExtraError("healthmw.fastapi", extra="fastapi") from _exc

from healthmw.starlette import dependency_unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.types import Receive, Scope, Send

    from healthmw._health import Health
    from healthmw.access import Authorizer

__all__ = (
    "HealthApp",
    "HealthMiddleware",
    "dependency_unavailable",
    "health_router",
    "require",
)


def _content(example: str, status: str) -> dict[str, Any]:
    """Return what OpenAPI says of an answer, in the two forms that clients are made for."""
    schema = {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"enum": ["pass", "warn", "fail"]}},
    }
    return {
        "text/plain": {"schema": {"type": "string"}, "example": example},
        health_json.CONTENT_TYPE: {"schema": schema, "example": {"status": status}},
    }


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Well", "content": _content("OKAY", "pass")},
    503: {
        "description": "Not well: the checks at fault, and why",
        "content": _content("FAILED: database (timeout)", "fail"),
    },
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"description": "No check or group has this name"}
}


class _UnavailableHTTPException(DependencyUnavailable, HTTPException):
    """A `DependencyUnavailable` that FastAPI can answer by itself, for apps without a handler."""

    def __init__(self, name: str, after: float | None) -> None:
        # Not by the base's constructor: it goes on to HTTPException's, with a name for a status.
        self.name, self.retry_after = name, after
        HTTPException.__init__(self, 503, UNAVAILABLE, headers=retry_after(self))


def require(check: Check) -> Callable[[], Awaitable[None]]:
    """Return a dependency that answers 503 while `check` is not available.

        @app.post("/orders", dependencies=[Depends(require(payments))])

    The handler does not run then. `Retry-After` says when to try again, where that is known. What
    is raised is a `DependencyUnavailable`, which a handler of the app's own may answer; where there
    is none, FastAPI answers it as the `HTTPException` it is. Raises `ValueError` for what is no
    check.
    """
    if not isinstance(check, Check):
        raise WrongTypeError(f"check must be what health.add() returns, not {check!r}")

    # Not sync: FastAPI would send it to the threads that may all be hanging at the dependency.
    async def required() -> None:
        if not check.available:
            raise _UnavailableHTTPException(check.name, check.retry_after)

    return required


class _Delegated(Response):
    """What the health app answers, in place of a response of FastAPI's."""

    def __init__(self, app: HealthApp, path: str) -> None:
        super().__init__()
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "path": self._path, "root_path": ""}, receive, send)


def health_router(
    health: Health,
    *,
    path: str = "/health_check",
    show: str = "names",
    authorize: Authorizer | Iterable[Authorizer] | None = None,
    drain_delay: float | None = None,
) -> APIRouter:
    """Return a router that answers at `path` and below it, and shows in the app's OpenAPI.

    The options are those of `HealthMiddleware`, but for `startup_timeout`: no start-up comes by
    here. Unlike the middleware, a router comes after the app's own middleware (host check,
    redirects, sessions), and the lifespan is the app's own: start and stop background checks there,
    with `async with health`.
    """
    app = HealthApp(health, path=path, show=show, authorize=authorize, drain_delay=drain_delay)
    path = path.rstrip("/")
    router = APIRouter(tags=["health"])

    async def ready() -> Response:
        """Say whether the app is ready: `OKAY`, or what is at fault."""
        return _Delegated(app, path)

    async def below(name: str) -> Response:
        """Say whether one group of checks, or one check, is well."""
        return _Delegated(app, f"{path}/{name}")

    for method, slash in (("GET", ""), ("HEAD", ""), ("GET", "/"), ("HEAD", "/")):
        shown = method == "GET" and not slash
        router.add_api_route(
            f"{path}{slash}",
            ready,
            methods=[method],
            responses=_RESPONSES,
            response_class=Response,
            include_in_schema=shown,
        )
        router.add_api_route(
            f"{path}/{{name}}{slash}",
            below,
            methods=[method],
            responses=_RESPONSES | _UNKNOWN,
            response_class=Response,
            include_in_schema=shown,
        )
    return router
