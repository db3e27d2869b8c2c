from __future__ import annotations

from typing import Any

import anyio
import httpx2
import jsonschema
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from healthmw import CircuitBreaker, DependencyUnavailable, Health
from healthmw.fastapi import HealthMiddleware, dependency_unavailable, health_router, require
from healthmw.starlette import health_routes
from healthmw.testing import ManualClock, ScriptedProbe
from tests.waiting import soon

GONE = OSError("gone")


def test_the_middleware_is_added_as_any_other() -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    app = FastAPI()
    app.add_middleware(HealthMiddleware, health=health)
    with TestClient(app) as client:
        assert client.get("/health_check").text == "OKAY"


def test_background_checks_run_as_long_as_the_lifespan() -> None:
    probe = ScriptedProbe()
    health = Health()
    health.add("database", probe, interval=3600)
    app = FastAPI()
    app.add_middleware(HealthMiddleware, health=health)
    with TestClient(app) as client:
        for _ in range(500):
            if client.get("/health_check").text == "OKAY":
                break
        else:
            pytest.fail("the background check did not run")
    assert probe.calls == 1


def test_the_router_answers_and_shows_in_openapi() -> None:
    health = Health(max_age=0)
    health.add("database", ScriptedProbe(None, GONE))
    app = FastAPI()
    app.include_router(health_router(health), prefix="/internal")
    client = TestClient(app)
    assert client.get("/internal/health_check").text == "OKAY"
    failed = client.get("/internal/health_check/database")
    assert (failed.status_code, failed.headers["Health-Status"]) == (503, "failed")
    head = client.head("/internal/health_check/live")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "4")
    assert client.get("/internal/health_check/no_such").status_code == 404
    paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    assert set(paths["/internal/health_check"]) == {"get"}
    shown = paths["/internal/health_check/{name}"]["get"]["responses"]
    assert {"200", "404", "503"} <= set(shown)
    assert shown["503"]["content"]["text/plain"]["example"] == "FAILED: database (timeout)"
    told = shown["503"]["content"]["application/health+json"]
    answer = client.get("/internal/health_check/database?format=json")
    assert answer.headers["Content-Type"] == "application/health+json"
    for document in (told["example"], answer.json()):
        jsonschema.validate(document, told["schema"])


def test_the_router_answers_with_a_slash_at_the_end_as_well() -> None:
    """A redirect would be a failure to most balancers."""
    health = Health()
    health.add("database", ScriptedProbe())
    app = FastAPI()
    app.include_router(health_router(health))
    client = TestClient(app, follow_redirects=False)
    for path in ("/health_check/", "/health_check/live/"):
        assert client.get(path).text == "OKAY"
        assert client.head(path).status_code == 200
    assert set(app.openapi()["paths"]) == {"/health_check", "/health_check/{name}"}


@pytest.mark.parametrize("make", [health_router, health_routes])
def test_routes_have_no_start_up_to_hold_back(make: Any) -> None:
    with pytest.raises(TypeError, match="startup_timeout"):
        make(Health(), startup_timeout=30)


@pytest.mark.parametrize("check", ["payments", None, ScriptedProbe()])
def test_what_is_required_is_a_check(check: Any) -> None:
    with pytest.raises(ValueError, match=r"check must be what health.add\(\) returns"):
        require(check)


def app_that_requires(health: Health) -> tuple[FastAPI, list[str], CircuitBreaker]:
    breaker = CircuitBreaker(open_for=30, jitter=0)
    payments = health.add("payments", ScriptedProbe(), breaker=breaker, critical=False)
    app, handled = FastAPI(), list[str]()

    @app.get("/pay", dependencies=[Depends(require(payments))])
    async def pay() -> str:
        handled.append("pay")
        return "paid"

    return app, handled, breaker


def trip(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        permit = breaker.try_acquire()
        assert permit is not None
        permit.failure()


def test_a_handler_does_not_run_while_what_it_requires_is_unavailable() -> None:
    app, handled, breaker = app_that_requires(Health(clock=ManualClock()))
    client = TestClient(app)
    assert client.get("/pay").json() == "paid"
    trip(breaker)
    answer = client.get("/pay")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert answer.json() == {
        "detail": "Service temporarily unavailable, please try again later",
    }
    assert handled == ["pay"]


@pytest.mark.anyio
async def test_it_is_refused_though_no_thread_is_free_for_handlers() -> None:
    app, handled, breaker = app_that_requires(Health(clock=ManualClock()))
    trip(breaker)
    threads = anyio.to_thread.current_default_thread_limiter()
    others = [object() for _ in range(int(threads.total_tokens))]  # hang at the dependency
    for other in others:
        threads.acquire_on_behalf_of_nowait(other)
    transport = httpx2.ASGITransport(app)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
            answer = await soon(client.get("/pay"))
    finally:
        for other in others:
            threads.release_on_behalf_of(other)
    assert (answer.status_code, handled) == (503, [])


def test_the_apps_own_handler_comes_first() -> None:
    app, _, breaker = app_that_requires(Health(clock=ManualClock()))

    @app.exception_handler(DependencyUnavailable)
    async def ours(request: Request, exc: DependencyUnavailable) -> JSONResponse:
        return JSONResponse({"sorry": exc.name}, 503)

    trip(breaker)
    assert TestClient(app).get("/pay").json() == {"sorry": "payments"}


def test_what_failed_without_a_breaker_is_unavailable_too() -> None:
    health = Health()
    search = health.add("search", ScriptedProbe(GONE))
    app = FastAPI(exception_handlers={DependencyUnavailable: dependency_unavailable})

    @app.get("/search", dependencies=[Depends(require(search))])
    async def find() -> str:
        return "found"

    client = TestClient(app)
    assert client.get("/search").json() == "found"
    health.run_sync()
    answer = client.get("/search")
    assert answer.status_code == 503
    assert "Retry-After" not in answer.headers
