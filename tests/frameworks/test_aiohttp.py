from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer

from healthmw import DependencyUnavailable, Health
from healthmw.aiohttp import setup
from healthmw.testing import ScriptedProbe
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Handler

    from healthmw.access import Caller

    Client = TestClient[web.Request, web.Application]

GONE = OSError("gone")


@web.middleware
async def nosy(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let nobody in who has no ticket, as an app's own authentication does."""
    if "ticket" not in request.query:
        raise web.HTTPUnauthorized
    return await handler(request)


def with_client(app: web.Application, use: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        async with TestClient(TestServer(app)) as client:
            await use(client)

    asyncio.run(main())


def test_it_answers_before_the_apps_own_middleware() -> None:
    health = Health(max_age=0)
    health.add("database", ScriptedProbe(None, None, None, None, GONE))
    app = web.Application(middlewares=[nosy])
    setup(app, health)

    async def use(client: Client) -> None:
        for path in ("/health_check", "/health_check/", "/health_check/database"):
            async with client.get(path) as answer:
                assert (answer.status, await answer.text()) == (200, "OKAY")
        async with client.head("/health_check") as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, "4")
        async with client.get("/health_check") as answer:
            assert (answer.status, await answer.text()) == (503, "FAILED: database (failed)")
            assert answer.headers["Health-Status"] == "failed"
        async with client.get("/health_check/nothing") as answer:
            assert answer.status == 404
        async with client.post("/health_check") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
        async with client.get("/health_checks") as answer:
            assert answer.status == 401

    with_client(app, use)


def test_formats_and_conditions_are_understood() -> None:
    health = Health(max_age=3600)
    health.add("database", ScriptedProbe())
    app = web.Application()
    setup(app, health, path="/up")

    async def use(client: Client) -> None:
        async with client.get("/up?format=json") as answer:
            etag = answer.headers["ETag"]
            assert (await answer.json(content_type=None))["status"] == "pass"
        async with client.get("/up?format=json", headers={"If-None-Match": etag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
        async with client.get("/up", headers={"Accept": "text/html"}) as answer:
            assert answer.content_type == "text/html"

    with_client(app, use)


def test_an_authorizer_hears_who_asks() -> None:
    seen: list[Caller] = []

    async def authorize(caller: Caller) -> bool:
        seen.append(caller)
        return caller.header("x-who") == "ops"

    health = Health()
    health.add("database", ScriptedProbe())
    app = web.Application()
    setup(app, health, show="summary", authorize=authorize)

    async def use(client: Client) -> None:
        async with client.get("/health_check/database") as answer:
            assert answer.status == 404
        async with client.get("/health_check/database", headers={"X-Who": "ops"}) as answer:
            assert answer.status == 200

    with_client(app, use)
    assert seen[-1].peer == "127.0.0.1"
    assert seen[-1].path == "/health_check/database"
    assert isinstance(seen[-1].raw, web.Request)


@pytest.mark.parametrize(("method", "body"), [("GET", True), ("HEAD", False)])
@pytest.mark.parametrize("at_once", [False, True])
def test_an_unavailable_dependency_is_answered(method: str, *, body: bool, at_once: bool) -> None:
    async def pay(request: web.Request) -> web.Response:
        error = DependencyUnavailable("payments", retry_after=7)
        raise ExceptionGroup("of a task group", [error]) if at_once else error

    app = web.Application()
    app.router.add_get("/pay", pay)
    setup(app, Health())

    async def use(client: Client) -> None:
        async with client.request(method, "/pay") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
            text = await answer.text()
            assert bool(text) is body
            assert "payments" not in text

    with_client(app, use)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_response_that_has_begun_is_not_begun_again(*, at_once: bool) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"so far")
        error = DependencyUnavailable("payments", retry_after=7)
        raise ExceptionGroup("of a task group", [error]) if at_once else error

    app = web.Application()
    app.router.add_get("/stream", stream)
    setup(app, Health())

    async def use(client: Client) -> None:
        async with client.get("/stream") as answer:
            assert answer.status == 200
            with pytest.raises(ClientPayloadError):  # cut off, as it should be
                await answer.read()

    with_client(app, use)


def test_background_checks_live_as_long_as_the_app() -> None:
    health, probe = Health(), ScriptedProbe()
    check = health.add("database", probe, interval=0.01)
    app = web.Application()
    setup(app, health)

    async def use(client: Client) -> None:
        await until(lambda: probe.calls > 2 and check.latest.ok)

    with_client(app, use)
    calls = probe.calls
    asyncio.run(asyncio.sleep(0.05))
    assert probe.calls == calls


def test_a_path_is_a_path() -> None:
    with pytest.raises(ValueError, match="path="):
        setup(web.Application(), Health(), path="up")
