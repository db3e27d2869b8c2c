"""What the middleware adds to a request that is none of its business, in process.

Beside nothing at all, and beside the least that anyone could write by hand for the same path.

    python -m benchmarks.passthrough [--json FILE]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks._measure import CONTROL, Results, nanoseconds, take_turns
from healthmw import Health, asgi, wsgi

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

TIMES = 2_000
BARE, BY_HAND, OURS = "the app alone", "a wrapper by hand", "healthmw"


def well() -> None:
    """Pass."""


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


def main() -> None:
    results = Results("Measure what the middleware adds to other requests.")
    health = Health()
    health.add("database", well)
    interfaces: dict[str, tuple[Any, dict[str, Any]]] = {
        "ASGI": (
            serve_asgi,
            {
                BARE: asgi_app,
                BY_HAND: AsgiByHand(asgi_app, "/health_check"),
                OURS: asgi.HealthMiddleware(asgi_app, health),
            },
        ),
        "WSGI": (
            serve_wsgi,
            {
                BARE: wsgi_app,
                BY_HAND: WsgiByHand(wsgi_app, "/health_check"),
                OURS: wsgi.HealthMiddleware(wsgi_app, health),
            },
        ),
    }
    for interface, (serve, apps) in interfaces.items():
        candidates = {
            name: nanoseconds(serve(app, "/orders/7"), TIMES) for name, app in apps.items()
        }
        samples = take_turns(candidates, rounds=results.rounds(301))
        by_hand = samples.added(BY_HAND, BARE)
        rows = []
        for name in (BARE, CONTROL, BY_HAND, OURS):
            added = None if name == BARE else samples.added(name, BARE)
            rows.append(
                {
                    interface: name,
                    "ns a request": samples.median(name),
                    "ns added": added,
                    "added, beside by hand": None if added is None else added / by_hand,
                }
            )
        results.table(f"{interface}: a request that passes through", rows)
    results.finish()


if __name__ == "__main__":
    main()
