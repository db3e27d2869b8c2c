"""aiohttp: the endpoint, the life of background checks, and 503 for what is unavailable."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from healthmw._http import Endpoint
from healthmw._request import Request
from healthmw._response import refusal, unavailable
from healthmw.access import Caller
from healthmw.exceptions import DependencyUnavailable, MissingExtraError

try:
    from aiohttp import web
except ImportError as _exc:
    raise MissingExtraError("healthmw.aiohttp", extra="aiohttp") from _exc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from aiohttp.typedefs import Handler

    from healthmw._health import Health
    from healthmw._response import Response
    from healthmw.access import Authorizer

__all__ = ("setup",)


def setup(
    app: web.Application,
    health: Health,
    *,
    path: str = "/health_check",
    show: str = "names",
    authorize: Authorizer | Iterable[Authorizer] | None = None,
) -> None:
    """Have `app` answer at `path` for `health`, before any middleware of its own.

    `health` is started and closed with the app. `show` and `authorize` are as in
    `healthmw.asgi.HealthMiddleware`; the `raw` of a caller is aiohttp's request. A
    `DependencyUnavailable` that escapes the app, or an exception group of nothing else, becomes a
    503, with `Retry-After` where it is known when to try again, unless the response has begun. To
    be called before the app starts, on the outermost app. Raises `ValueError` for a `path` that is
    no path.
    """
    endpoint = Endpoint(health, path, show=show, authorize=authorize)
    begun: dict[int, bool] = {}  # of the requests that are with their handlers: has the response?

    @web.middleware
    async def healthmw(request: web.Request, handler: Handler) -> web.StreamResponse:
        rest = endpoint.rest_of(request.path)
        if rest is not None:
            return await _answer(endpoint, request, rest)
        begun[id(request)] = False
        try:
            return await handler(request)
        except (DependencyUnavailable, BaseExceptionGroup) as exc:
            refused = refusal(exc)
            if refused is None or begun[id(request)]:
                raise
            return _as_aiohttp(unavailable(refused, request.method))
        finally:
            del begun[id(request)]

    async def note(request: web.Request, _response: web.StreamResponse) -> None:
        if id(request) in begun:
            begun[id(request)] = True

    async def life(_app: web.Application) -> AsyncIterator[None]:
        async with health:
            yield

    app.middlewares.insert(0, healthmw)
    app.on_response_prepare.append(note)
    app.cleanup_ctx.append(life)


async def _answer(endpoint: Endpoint, request: web.Request, rest: str) -> web.Response:
    def header(name: str) -> str:
        return ",".join(request.headers.getall(name, ()))

    asked = Request(
        request.method,
        rest,
        request.rel_url.raw_query_string,
        header("Accept"),
        header("If-None-Match"),
    )
    response = endpoint.prepared(asked[:4], asked.if_none_match)
    if response is None:
        caller = partial(
            Caller,
            peer=request.remote or "",
            method=request.method,
            path=request.path,
            header=header,
            raw=request,
        )
        response = await endpoint.answer(asked, caller)
    return _as_aiohttp(response)


def _as_aiohttp(response: Response) -> web.Response:
    return web.Response(
        status=response.status, headers=dict(response.headers), body=response.body or None
    )
