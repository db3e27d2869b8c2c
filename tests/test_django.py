"""Django behind the middleware, and the endpoint among Django's routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import Client
from django.test.utils import override_settings

from healthmw import Health, asgi, wsgi
from healthmw.django import health_view
from tests import django_project
from tests.django_project import HOST, database
from tests.transports import Answer, ask_asgi, ask_wsgi

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from healthmw.access import Caller


def well() -> None:
    """Be a probe that passes."""


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    django_project.seen.clear()
    yield
    database.fails = False


@pytest.fixture
def health() -> Health:
    health = Health()
    health.add("database", well)
    return health


# Behind the middleware


async def assert_answers_before_django(ask: Callable[..., Awaitable[Answer]]) -> None:
    """Ask as a load balancer does: by address, without HTTPS."""
    for path in ("/health_check", "/health_check/", "/health_check/live"):
        answer = await ask("GET", path, host="10.0.0.5")
        assert (answer.status, answer.body) == (200, b"OKAY")
        assert "set-cookie" not in answer
        assert "strict-transport-security" not in answer
    assert (await ask("POST", "/health_check", host="10.0.0.5")).status == 405
    assert django_project.seen == []

    # The settings are in force all the same.
    assert (await ask("GET", "/", host="10.0.0.5")).status == 400
    redirect = await ask("GET", "/", host=HOST)
    assert (redirect.status, redirect["location"]) == (301, f"https://{HOST}/")
    assert django_project.seen == ["/", "/"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_health_path_is_answered_before_django_sees_the_request_by_asgi(
    health: Health,
) -> None:
    app = asgi.HealthMiddleware(get_asgi_application(), health)

    async def ask(method: str, path: str, *, host: str) -> Answer:
        return await ask_asgi(app, method, path, host=host)

    await assert_answers_before_django(ask)


@pytest.mark.anyio
async def test_the_health_path_is_answered_before_django_sees_the_request_by_wsgi(
    health: Health,
) -> None:
    app = wsgi.HealthMiddleware(get_wsgi_application(), health)

    async def ask(method: str, path: str, *, host: str) -> Answer:
        return ask_wsgi(app, method, path, host=host)

    await assert_answers_before_django(ask)


@override_settings(SECURE_SSL_REDIRECT=False)
def test_djangos_own_answers_pass_through(health: Health) -> None:
    app = wsgi.HealthMiddleware(get_wsgi_application(), health)

    home = ask_wsgi(app, path="/", host=HOST)
    assert (home.status, home.body) == (200, b"home")
    assert "set-cookie" in home
    assert ask_wsgi(app, path="/stream/", host=HOST).body == b"ab"
    assert ask_wsgi(app, path="/nothing/", host=HOST).status == 404


# Among the routes


@pytest.mark.parametrize(
    "path", ["/up/", "/status", "/status/", "/status/ready", "/status/live/", "/status/database"]
)
def test_the_view_answers_at_its_route(path: str) -> None:
    client = Client(SERVER_NAME=HOST)

    for method, body in (("get", b"OKAY"), ("head", b"")):
        answer = getattr(client, method)(path, secure=True)
        assert (answer.status_code, answer.content) == (200, body)
        assert answer["content-length"] == "4"
        assert answer["cache-control"] == "no-store"
        assert answer["health-status"] == "okay"
        assert answer["health-release"] == "v42"
    assert client.get(path, {"verbose": ""}, secure=True).content.startswith(b"OKAY\n")


def test_the_view_tells_what_is_at_fault_and_no_more() -> None:
    database.fails = True
    answer = Client(SERVER_NAME=HOST).get("/up/", secure=True)

    assert (answer.status_code, answer.content) == (503, b"FAILED: database (failed)")


def test_the_view_knows_what_it_does_not_know() -> None:
    client = Client(SERVER_NAME=HOST, enforce_csrf_checks=True)

    assert client.get("/status/nothing", secure=True).status_code == 404
    refused = client.post("/up/", secure=True)
    assert (refused.status_code, refused["allow"]) == (405, "GET, HEAD")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@override_settings(SECURE_SSL_REDIRECT=False)
async def test_the_view_answers_by_asgi_too() -> None:
    app = get_asgi_application()

    for method, body in (("GET", b"OKAY"), ("HEAD", b"")):
        answer = await ask_asgi(app, method, "/up/", host=HOST)
        assert (answer.status, answer.body, answer["content-length"]) == (200, body, "4")


def test_the_view_answers_in_the_format_that_is_asked_for() -> None:
    client = Client(SERVER_NAME=HOST)

    page = client.get("/up/", secure=True, headers={"accept": "text/html"})
    assert page["content-type"] == "text/html; charset=utf-8"
    answer = client.get("/status/database", {"format": "json"}, secure=True)
    assert answer.json()["status"] == "pass"
    again = client.get(
        "/status/database",
        {"format": "json"},
        secure=True,
        headers={"if-none-match": answer["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")
    assert "content-type" not in again.headers  # what the client has is no page of HTML


def test_the_view_shows_everything_to_whom_the_app_knows() -> None:
    database.fails = True
    client = Client(SERVER_NAME=HOST)

    assert client.get("/staff/?verbose", secure=True).content == b"FAILED\n"
    assert b"a secret detail" in client.get("/staff/?verbose&user=staff", secure=True).content
    assert client.get("/staff/?fresh", secure=True).status_code == 403
    assert client.get("/staff/?fresh&user=staff", secure=True).status_code == 503


def test_the_view_has_no_loop_to_wait_on() -> None:
    async def authorize(_caller: Caller) -> bool:
        return True

    with pytest.raises(TypeError, match="authorize must not be async"):
        health_view(Health(), authorize=authorize)


def test_a_view_is_made_without_a_path() -> None:
    with pytest.raises(TypeError):
        health_view(Health(), path="/up")  # type: ignore[call-arg] # what is tested
