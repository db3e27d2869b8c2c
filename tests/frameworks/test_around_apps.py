"""Starlette, FastAPI, Flask and Werkzeug, with the endpoint around them and inside of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import flask
import pytest
from fastapi import Depends, FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from healthmw import DependencyUnavailable, Health, asgi, wsgi
from tests.transports import Answer, ask_asgi, ask_wsgi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

HOST = "shop.example"


@pytest.fixture
def health() -> Health:
    health = Health()
    health.add("database", lambda: None)
    return health


# Starlette


async def home(request: Request) -> Response:
    return PlainTextResponse("home")


async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a", b"b", b"c"):
            yield piece

    return StreamingResponse(pieces())


async def buy(request: Request) -> Response:
    raise DependencyUnavailable("payments", 5)


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


ROUTES = [
    Route("/", home),
    Route("/stream", stream),
    Route("/buy", buy),
    WebSocketRoute("/echo", echo),
]


@pytest.mark.anyio
async def test_starlettes_host_check_and_redirect_never_see_the_health_path(health: Health) -> None:
    app = Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(asgi.HealthMiddleware, health=health),
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST]),
            Middleware(HTTPSRedirectMiddleware),
        ],
    )

    assert (await ask_asgi(app, path="/health_check", host="10.0.0.5")).body == b"OKAY"
    assert (await ask_asgi(app, path="/", host="10.0.0.5")).status == 400
    assert (await ask_asgi(app, path="/", host=HOST)).status == 307


@pytest.mark.anyio
async def test_starlettes_middlewares_may_stand_around_it(health: Health) -> None:
    async def tag(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["request-id"] = "7"
        return response

    app = Starlette(
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=tag),
            Middleware(GZipMiddleware, minimum_size=1),
            Middleware(asgi.HealthMiddleware, health=health),
        ]
    )

    for _ in range(3):
        answer = await ask_asgi(app, path="/health_check")
        assert (answer.status, answer.body, answer["request-id"]) == (200, b"OKAY", "7")


def test_starlette_behind_it_is_as_before(health: Health, anyio_backend_name: str) -> None:
    events = []

    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        events.append("starts")
        yield {"pool": "the app's own"}
        events.append("stops")

    inner = Starlette(routes=ROUTES, lifespan=asynccontextmanager(lifespan))
    app = asgi.HealthMiddleware(inner, health)

    with TestClient(app, backend=anyio_backend_name) as client:  # type: ignore[arg-type]
        assert events == ["starts"]
        assert client.get("/").text == "home"
        assert client.get("/stream").text == "abc"
        assert client.get("/nothing").status_code == 404
        with client.websocket_connect("/echo") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "hello"
        assert client.get("/health_check").text == "OKAY"
        assert client.head("/health_check").headers["content-length"] == "4"
    assert events == ["starts", "stops"]


@pytest.mark.anyio
async def test_an_unavailable_dependency_is_a_503_inside_of_starlettes_error_handling(
    health: Health,
) -> None:
    app = Starlette(routes=ROUTES, middleware=[Middleware(asgi.HealthMiddleware, health=health)])

    answer = await ask_asgi(app, path="/buy")
    assert (answer.status, answer["retry-after"]) == (503, "5")


@pytest.mark.anyio
async def test_the_app_is_mounted_in_starlettes_routes(health: Health) -> None:
    app = Starlette(
        routes=[
            Mount("/health_check", asgi.HealthApp(health)),
            Mount("/deep/inside", routes=[Mount("/up", asgi.HealthApp(health))]),
            Mount("/api", asgi.HealthMiddleware(Starlette(routes=ROUTES), health)),
        ]
    )

    for path in ("/health_check/", "/health_check/live", "/deep/inside/up/", "/api/health_check"):
        assert (await ask_asgi(app, path=path)).body == b"OKAY"
    assert (await ask_asgi(app, path="/api/")).body == b"home"
    for path in ("/health_check/nothing", "/deep/inside/up/nothing", "/deep/health_check"):
        assert (await ask_asgi(app, path=path)).status == 404
    assert (await ask_asgi(app, "POST", "/health_check/")).status == 405


# FastAPI


@pytest.mark.anyio
@pytest.mark.parametrize("root_path", ["", "/api/v1"])
async def test_fastapis_dependencies_and_docs_know_nothing_of_it(
    health: Health, root_path: str
) -> None:
    def refuse() -> None:
        raise HTTPException(401)

    app = FastAPI(dependencies=[Depends(refuse)])
    app.add_middleware(asgi.HealthMiddleware, health=health)

    @app.get("/orders")
    async def orders() -> dict[str, int]:
        return {"orders": 7}

    async def ask(path: str) -> Answer:
        return await ask_asgi(app, path=path, root_path=root_path)

    # Servers of before the specification's clarification cut off the prefix.
    for prefix in {"", root_path}:
        assert (await ask(f"{prefix}/health_check")).body == b"OKAY"
        assert (await ask(f"{prefix}/health_check/database")).body == b"OKAY"
        assert (await ask(f"{prefix}/health_check/nothing")).status == 404
        assert (await ask(f"{prefix}/orders")).status == 401
    assert list(app.openapi()["paths"]) == ["/orders"]


# Flask


def make_flask() -> flask.Flask:
    app = flask.Flask(__name__)
    app.secret_key = "not a secret"

    @app.before_request
    def refuse_strangers() -> None:
        flask.session["seen"] = True
        if flask.request.host != HOST:
            flask.abort(401)

    @app.get("/")
    def home() -> str:
        return "home"

    @app.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(flask.stream_with_context(iter(["a", "b"])))

    @app.get("/file")
    def file() -> flask.Response:
        return flask.send_file(__file__, mimetype="text/plain")

    return app


def test_flasks_hooks_never_see_the_health_path(health: Health) -> None:
    app = make_flask()
    app.wsgi_app = wsgi.HealthMiddleware(app.wsgi_app, health)  # type: ignore[method-assign] # Flask's docs

    answer = ask_wsgi(app, path="/health_check", host="10.0.0.5")
    assert (answer.status, answer.body) == (200, b"OKAY")
    assert "set-cookie" not in answer
    assert ask_wsgi(app, path="/", host="10.0.0.5").status == 401
    home = ask_wsgi(app, path="/", host=HOST)
    assert (home.body, "set-cookie" in home) == (b"home", True)
    assert ask_wsgi(app, path="/stream", host=HOST).body == b"ab"
    client = app.test_client()
    assert client.get("/health_check/live").text == "OKAY"
    with client.get("/file", headers={"Host": HOST}) as file:
        assert file.data.startswith(b'"""Starlette, FastAPI')


def test_the_app_is_mounted_beside_flask(health: Health) -> None:
    app: Any = DispatcherMiddleware(make_flask(), {"/health_check": wsgi.HealthApp(health)})

    for path in ("/health_check", "/health_check/", "/health_check/live", "/health_check/database"):
        assert ask_wsgi(app, path=path).body == b"OKAY"
    assert ask_wsgi(app, path="/health_check/nothing").status == 404
    assert ask_wsgi(app, path="/", host=HOST).body == b"home"


def test_the_middleware_is_mounted_below_a_prefix(health: Health) -> None:
    below = wsgi.HealthMiddleware(make_flask(), health)
    app: Any = DispatcherMiddleware(make_flask(), {"/api": below})

    assert ask_wsgi(app, path="/api/health_check").body == b"OKAY"
    assert ask_wsgi(app, path="/api/", host=HOST).body == b"home"
    assert ask_wsgi(app, path="/health_check", host=HOST).status == 404
