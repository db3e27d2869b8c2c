from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from healthmw import DependencyUnavailable, Health
from healthmw.starlette import HealthMiddleware, dependency_unavailable, health_routes
from healthmw.testing import ScriptedProbe

if TYPE_CHECKING:
    from starlette.responses import PlainTextResponse

    from healthmw.asgi import ASGIApp

GONE = OSError("gone")


def healthy() -> Health:
    health = Health(max_age=0)
    health.add("database", ScriptedProbe(None, GONE))
    return health


def refuse(request: Request) -> PlainTextResponse:
    raise DependencyUnavailable("payments", retry_after=7)


def test_the_middleware_answers_before_the_host_check() -> None:
    app = Starlette(
        middleware=[
            Middleware(HealthMiddleware, health=healthy()),
            Middleware(TrustedHostMiddleware, allowed_hosts=["shop.example"]),
        ]
    )
    with TestClient(app, base_url="http://10.0.0.5") as client:
        assert client.get("/").status_code == 400
        assert client.get("/health_check").text == "OKAY"
        assert client.get("/health_check").text == "FAILED: database (failed)"


def test_a_misspelt_option_is_refused() -> None:
    app = Starlette(middleware=[Middleware(HealthMiddleware, health=healthy(), pth="/up")])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="pth"), TestClient(app):
        pytest.fail("it started")


@pytest.mark.parametrize("prefix", ["", "/internal"])
def test_routes_answer_where_they_are_mounted(prefix: str) -> None:
    routes = health_routes(healthy(), path="/up/")
    app = Starlette(routes=[Mount(prefix, routes=routes)] if prefix else [*routes])
    client = TestClient(app)
    first = client.get(f"{prefix}/up")
    assert (first.text, first.headers["Health-Status"]) == ("OKAY", "okay")
    second = client.get(f"{prefix}/up/database")
    assert (second.text, second.status_code) == ("FAILED: database (failed)", 503)
    assert client.get(f"{prefix}/up/live").text == "OKAY"
    assert client.get(f"{prefix}/up/no_such").status_code == 404
    assert client.post(f"{prefix}/up").status_code == 405


def test_the_handler_answers_inside_the_app() -> None:
    seen = []

    class Watching:
        """The app's own middleware: it is to see the response."""

        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            async def watching(message) -> None:  # type: ignore[no-untyped-def]
                seen.append(message.get("status"))
                await send(message)

            await self.app(scope, receive, watching)

    app = Starlette(
        routes=[Route("/pay", refuse)],
        middleware=[Middleware(Watching)],
        exception_handlers={DependencyUnavailable: dependency_unavailable},
    )
    answer = TestClient(app).get("/pay")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert "payments" not in answer.text
    assert seen[0] == 503


@pytest.mark.anyio
async def test_the_handler_is_for_nothing_else() -> None:
    with pytest.raises(OSError, match="gone"):
        await dependency_unavailable(Request({"type": "http"}), GONE)


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize("denies", [True, False], ids=["503", "close"])
def test_the_handler_answers_a_websocket_too(accepted: bool, denies: bool) -> None:
    async def refuse(socket: WebSocket) -> None:
        if accepted:
            await socket.accept()
        if not denies:
            socket.scope["extensions"] = {}  # of a server that can only close it
        raise DependencyUnavailable("payments", retry_after=7)

    app = Starlette(
        routes=[WebSocketRoute("/pay", refuse)],
        exception_handlers={DependencyUnavailable: dependency_unavailable},
    )
    client = TestClient(app)
    if denies and not accepted:
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/pay"):
            pytest.fail("it was accepted")
        answer = denied.value
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
        return
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/pay") as socket:
        socket.receive_text()
    assert closed.value.code == 1013
