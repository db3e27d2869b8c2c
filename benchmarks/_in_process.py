"""Requests to an app in this process, without a server: under any Python, for any candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

# ASGI


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


class AsgiByHand:
    """A pure ASGI middleware that answers at one path, knows no more, and catches nothing."""

    def __init__(self, app: Any, path: str) -> None:
        self.app = app
        self.path = path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == self.path:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"OKAY"})
            return
        await self.app(scope, receive, send)


class AsgiByHandNoting(AsgiByHand):
    """The same, and it knows at the end whether the response has begun."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == self.path:
            await super().__call__(scope, receive, send)
            return
        begun = False

        def noting(message: Any) -> Any:
            nonlocal begun
            begun = True
            return send(message)

        try:
            await self.app(scope, receive, noting)
        except LookupError:
            if begun:
                raise


def serve_asgi(app: Callable[..., Awaitable[None]], path: str) -> Callable[[int], None]:
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"10.0.0.5"), (b"user-agent", b"probe/1"), (b"accept", b"*/*")],
    }

    async def receive() -> Any:
        raise NotImplementedError

    async def send(message: Any) -> None:
        pass

    async def requests(times: int) -> None:
        for _ in range(times):
            await app(scope, receive, send)

    def run(times: int) -> None:
        coroutine = requests(times)
        try:
            coroutine.send(None)  # nothing in here waits, so no event loop is measured
        except StopIteration:
            return

    return run


# WSGI


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


class WsgiByHand:
    """The same for WSGI."""

    def __init__(self, app: Any, path: str) -> None:
        self.app = app
        self.path = path

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ.get("PATH_INFO") == self.path:
            start_response("200 OK", [])
            return [b"OKAY"]
        return self.app(environ, start_response)


def serve_wsgi(app: Callable[..., Iterable[bytes]], path: str) -> Callable[[int], None]:
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        "HTTP_ACCEPT": "*/*",
    }

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        pass

    def run(times: int) -> None:
        for _ in range(times):
            for _piece in app(environ, start_response):
                pass

    return run
