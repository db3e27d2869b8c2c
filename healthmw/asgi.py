"""ASGI: the middleware, and the endpoint as an app of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any

from healthmw._drain import DRAINER
from healthmw._http import Endpoint
from healthmw._lifespan import Life
from healthmw._request import Request, caller_of_scope, words_of_scope
from healthmw._response import Response, refusal, unavailable
from healthmw.exceptions import DependencyUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from healthmw._health import Health
    from healthmw.access import Authorizer

__all__ = (
    "ASGIApp",
    "HealthApp",
    "HealthMiddleware",
    "Message",
    "Receive",
    "Scope",
    "Send",
)

# Loose enough for Starlette's and asgiref's types both.
Scope = MutableMapping[str, Any]
"""What an ASGI server says of a connection."""
Message = MutableMapping[str, Any]
"""One message of ASGI."""
Receive = Callable[[], Awaitable[Message]]
"""What gives an app its next message."""
Send = Callable[[Message], Awaitable[None]]
"""What takes a message from an app."""
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""Any ASGI app."""

# What the last message may be where no response has begun.
_BEFORE_A_RESPONSE = ("http.response.early_hint",)


class HealthMiddleware:
    """Answer at `path` whether the app is ready, and let everything else through untouched.

    `app` is any ASGI app. `health` is started when the app's lifespan has started and closed when
    it ends; where there is no lifespan, the first request at `path` starts it.

    `show` is what anyone may see: `"summary"` (the verdict alone), `"names"` (names and reason
    codes, too) or `"full"`. `authorize` lifts a caller to `"full"`: a `healthmw.access.Token`, a
    `healthmw.access.Networks`, a function of your own (async, if you like), or a list of these.

    `startup_timeout` (seconds) holds back the end of the app's start-up until the group `startup`
    passes: servers that bind their port only then, bind it only when the app is ready. Where it
    does not pass in time the start-up fails, and with it the process.

    `drain_delay` (seconds) is for how long the app goes on serving after a SIGTERM, while `ready`
    fails for the reason `draining` and `live` does not; then the server shuts down as ever. A
    second SIGTERM cuts it short. It needs a server that handles SIGTERM in the main thread.

    A `DependencyUnavailable` that escapes the app, or an exception group of nothing else, becomes a
    503, with `Retry-After` where it is known when to try again, unless the response has begun.
    Raises `ValueError` for a `path` that is no path.
    """

    def __init__(
        self,
        app: ASGIApp,
        health: Health,
        *,
        path: str = "/health_check",
        show: str = "names",
        authorize: Authorizer | Iterable[Authorizer] | None = None,
        startup_timeout: float | None = None,
        drain_delay: float | None = None,
    ) -> None:
        self.app = app
        self.health = health
        self._endpoint = Endpoint(health, path, show=show, authorize=authorize)
        self._life = Life(health, startup_timeout=startup_timeout, drain_delay=drain_delay)
        self._path = self._endpoint.path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._begin_or_pass(scope, receive, send)
            return
        # One look at the path keeps all other traffic out: `root_path`, groups and checks are told
        # apart only behind it.
        if self._path in scope["path"]:
            endpoint, root_path = self._endpoint, scope.get("root_path", "")
            rest: str | None = ""  # mostly, and a call less
            if root_path or scope["path"] != self._path:
                rest = endpoint.rest_of(scope["path"], root_path)
            if rest is not None:
                words, if_none_match = words_of_scope(scope, rest)
                response = endpoint.prepared(words, if_none_match)
                if response is None:
                    request = Request(*words, if_none_match)
                    response = await _answer(endpoint, self._life, scope, request)
                begin, end = response.messages()
                await send(begin)
                await send(end)
                return
        last: Message | None = None

        def noting(message: Message) -> Awaitable[None]:
            nonlocal last
            last = message
            return send(message)  # not awaited here: a coroutine less for each message

        try:
            await self.app(scope, receive, noting)
        except (DependencyUnavailable, BaseExceptionGroup) as exc:
            refused = refusal(exc)
            if refused is None or not (last is None or last["type"] in _BEFORE_A_RESPONSE):
                raise
            for message in unavailable(refused, scope["method"]).messages():
                await send(message)

    async def _begin_or_pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._life(self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)


class HealthApp:
    """The endpoint as an ASGI app: to be mounted in another app's routes, or served alone.

    It answers relative to where it is mounted, and at `path` as well. The options are those of
    `HealthMiddleware`; `startup_timeout` holds back the start only where it is served alone, for no
    start-up comes by where it is mounted.
    """

    def __init__(
        self,
        health: Health,
        *,
        path: str = "/health_check",
        show: str = "names",
        authorize: Authorizer | Iterable[Authorizer] | None = None,
        startup_timeout: float | None = None,
        drain_delay: float | None = None,
    ) -> None:
        self.health = health
        self._endpoint = Endpoint(health, path, show=show, authorize=authorize)
        self._life = Life(health, startup_timeout=startup_timeout, drain_delay=drain_delay)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._life(_started, scope, receive, send)
        elif scope["type"] == "http":
            rest = self._endpoint.mounted_rest_of(scope["path"], scope.get("root_path", ""))
            words, if_none_match = words_of_scope(scope, rest)
            response = self._endpoint.prepared(words, if_none_match)
            if response is None:
                request = Request(*words, if_none_match)
                response = await _answer(self._endpoint, self._life, scope, request)
            begin, end = response.messages()
            await send(begin)
            await send(end)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})


def _answer(endpoint: Endpoint, life: Life, scope: Scope, request: Request) -> Awaitable[Response]:
    if life.drains:
        DRAINER.arm()  # where the server has no lifespan
    return endpoint.answer(request, partial(caller_of_scope, scope))


async def _started(_scope: Scope, receive: Receive, send: Send) -> None:
    """Be an app that has nothing to start or stop."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
