"""The ASGI middleware and app: what is ASGI's own, and what must pass through untouched."""

from __future__ import annotations

import math
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from asgiref.testing import ApplicationCommunicator

from healthmw import DependencyUnavailable, Health
from healthmw.asgi import HealthApp, HealthMiddleware
from tests.transports import AsgiExchange, ask_asgi, http_scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, MutableMapping

    from healthmw.asgi import ASGIApp

pytestmark = pytest.mark.anyio

PATIENCE = 10.0  # seconds; far more than any of this takes


def well() -> None:
    """Be a probe that passes."""


def healthy(**options: Any) -> Health:
    health = Health(**options)
    health.add("database", well)
    return health


class Recorder:
    """An app that keeps what it was called with, and answers nothing."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append((scope, receive, send))


async def no_receive() -> Any:
    pytest.fail("nobody may receive here")


async def no_send(message: Any) -> None:
    pytest.fail(f"nobody may send {message} here")


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


# Everything else passes through


@pytest.mark.parametrize("kind", ["websocket", "webtransport", "lifespan.v2", "", "tcp"])
async def test_scopes_that_are_not_http_are_handed_on_as_they_are(kind: str) -> None:
    recorder, scope = Recorder(), {"type": kind, "path": "/health_check"}

    await HealthMiddleware(recorder, healthy())(scope, no_receive, no_send)

    ((seen_scope, seen_receive, seen_send),) = recorder.calls
    assert seen_scope is scope
    assert seen_scope == {"type": kind, "path": "/health_check"}
    assert seen_receive is no_receive
    assert seen_send is no_send


async def test_a_request_reaches_the_app_with_its_own_scope_and_receive() -> None:
    recorder, scope = Recorder(), http_scope("POST", "/upload", query="a=b")
    before = dict(scope)

    await HealthMiddleware(recorder, healthy())(scope, no_receive, no_send)

    ((seen_scope, seen_receive, _),) = recorder.calls
    assert seen_scope is scope
    assert scope == before
    assert seen_receive is no_receive


async def test_the_app_is_not_told_of_what_the_endpoint_answers() -> None:
    recorder = Recorder()
    app = HealthMiddleware(recorder, healthy())

    for method in ("GET", "HEAD", "POST"):
        for path in ("/health_check", "/health_check/live", "/health_check/nothing"):
            await ask_asgi(app, method, path)

    assert recorder.calls == []


async def test_a_stream_is_passed_on_piece_by_piece_and_waits_for_the_client() -> None:
    sent: list[Any] = []
    pieces = [
        {"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
        *({"type": "http.response.body", "body": b"%d" % n, "more_body": True} for n in range(5)),
        {"type": "http.response.body", "body": b"", "more_body": False},
        {"type": "http.response.trailers", "headers": [(b"a", b"b")], "more_trailers": False},
    ]

    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        for number, piece in enumerate(pieces):
            assert len(sent) == number, "the server has had each piece before the next is made"
            assert await send(piece) == f"sent {number}"

    async def slow_send(message: Any) -> Any:
        await anyio.sleep(0.001)
        sent.append(message)
        return f"sent {len(sent) - 1}"

    await HealthMiddleware(streaming, healthy())(http_scope(), no_receive, slow_send)

    assert len(sent) == len(pieces)
    assert all(got is piece for got, piece in zip(sent, pieces, strict=True))


async def test_request_bodies_and_disconnects_reach_the_app() -> None:
    incoming = iter(
        [
            {"type": "http.request", "body": b"a", "more_body": True},
            {"type": "http.request", "body": b"b", "more_body": False},
            {"type": "http.disconnect"},
        ]
    )
    seen = []

    async def receive() -> Any:
        return next(incoming)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([await receive() for _ in range(3)])

    await HealthMiddleware(app, healthy())(http_scope(), receive, no_send)

    assert [message["type"] for message in seen] == ["http.request"] * 2 + ["http.disconnect"]


@pytest.mark.parametrize("begun", [False, True])
async def test_what_the_app_raises_comes_out_as_it_is(*, begun: bool) -> None:
    error = RuntimeError("the app's own")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    exchange = AsgiExchange()
    with pytest.raises(RuntimeError) as caught:
        await HealthMiddleware(app, healthy())(http_scope(), exchange.receive, exchange.send)

    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None
    assert len(exchange.messages) == begun


async def test_what_send_raises_reaches_the_app() -> None:
    async def gone(message: Any) -> None:
        raise OSError("the client went away")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(OSError, match="the client went away"):
            await send({"type": "http.response.start", "status": 200, "headers": []})

    await HealthMiddleware(app, healthy())(http_scope(), no_receive, gone)


async def test_a_cancelled_request_is_cancelled() -> None:
    ended = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    with anyio.move_on_after(0.05) as scope:
        await HealthMiddleware(app, healthy())(http_scope(), no_receive, no_send)
    assert scope.cancelled_caught
    assert ended


async def test_options_are_looked_at_when_the_app_is_made() -> None:
    bad: dict[str, Any] = {"path": "health_check"}
    with pytest.raises(ValueError, match=r"path='health_check' must begin with '/'"):
        HealthMiddleware(hello, healthy(), **bad)
    with pytest.raises(TypeError):
        HealthMiddleware(hello, healthy(), "/health_check")  # type: ignore[call-arg] # what is tested


@pytest.mark.parametrize("path", ["/health_check", "/health_check/nothing"])
async def test_header_names_are_in_lower_case(path: str) -> None:
    exchange = AsgiExchange()
    app = HealthMiddleware(hello, healthy())
    await app(http_scope(path=path), exchange.receive, exchange.send)

    headers = exchange.messages[0]["headers"]
    assert [name for name, _ in headers] == [name.lower() for name, _ in headers]


@pytest.mark.parametrize(
    ("root_path", "path"),
    [
        ("/api", "/api/health_check"),
        ("/api", "/health_check"),  # servers of before the specification's clarification
        ("/api/", "/api/health_check"),
        ("/api/", "/api//health_check"),  # uvicorn --root-path /api/
        ("/", "/health_check"),
        ("/api", "/api/health_check/live/"),
    ],
)
async def test_a_mount_point_is_told_from_the_path(root_path: str, path: str) -> None:
    app = HealthMiddleware(hello, healthy())

    assert (await ask_asgi(app, path=path, root_path=root_path)).body == b"OKAY"


async def test_what_only_begins_like_the_mount_point_is_another_path() -> None:
    app = HealthApp(healthy())

    assert (await ask_asgi(app, path="/upx", root_path="/up")).status == 404
    assert (await ask_asgi(app, path="/up", root_path="/up")).status == 200


# A verdict in memory


def run_without_a_loop(app: ASGIApp, path: str, method: str = "GET") -> list[Any]:
    """Run one request to its end; it may wait for nothing, start nothing and call no other thread.

    There is no event loop here to serve any of these.
    """
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    coroutine: Any = app(http_scope(method, path), no_receive, send)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    return sent


async def remember(app: ASGIApp, *paths: str) -> None:
    for path in paths:
        for method in ("GET", "HEAD"):
            await ask_asgi(app, method, path)


@pytest.mark.parametrize("make", ["middleware", "app"])
def test_a_verdict_in_memory_is_told_without_a_task_a_thread_or_a_loop(
    make: str, anyio_backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    health = Health(max_age=3600)
    health.add("database", lambda: ran.append(1))
    app: Any = HealthMiddleware(hello, health) if make == "middleware" else HealthApp(health)
    paths = ("/health_check", "/health_check/live", "/health_check/database/")
    anyio.run(remember, app, *paths, backend=anyio_backend_name)
    assert ran == [1]
    monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("a thread is started"))

    for path in paths:
        (start, body) = run_without_a_loop(app, path)
        assert (start["status"], body["body"]) == (200, b"OKAY")
        (start, body) = run_without_a_loop(app, path, "HEAD")
        assert (start["status"], body["body"]) == (200, b"")
    assert ran == [1]


def test_a_verdict_in_memory_is_rendered_once(anyio_backend_name: str) -> None:
    health = Health(max_age=3600)
    health.add("database", lambda: 1 / 0)
    app = HealthMiddleware(hello, health)
    anyio.run(remember, app, "/health_check", backend=anyio_backend_name)

    bodies = [run_without_a_loop(app, "/health_check")[1]["body"] for _ in range(3)]

    assert bodies[0] == b"FAILED: database (failed)"
    assert bodies[0] is bodies[1] is bodies[2]


@pytest.mark.parametrize("path", ["/health_check", "/health_check/nothing"])
async def test_who_changes_an_answer_on_its_way_out_changes_that_one_only(path: str) -> None:
    inner = HealthMiddleware(hello, healthy(max_age=3600))

    async def tagging(scope: Any, receive: Any, send: Any) -> None:
        async def tagged(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"request-id", b"7"))
                message["status"] += 1
            else:
                message["body"] += b"!"
            await send(message)

        await inner(scope, receive, tagged)

    first = await ask_asgi(tagging, path=path)
    for _ in range(3):
        assert await ask_asgi(tagging, path=path) == first
    assert first["request-id"] == "7"


# DependencyUnavailable


def raising(error: Exception, *, after: int = 0) -> ASGIApp:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"so far", "more_body": True},
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages[:after]:
            await send(message)
        raise error

    return app


@pytest.mark.parametrize(
    ("retry_after", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (29.1, "30"), (3600, "3600")]
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_an_unavailable_dependency_is_a_503_that_says_when_to_come_back(
    retry_after: float, header: str, method: str
) -> None:
    app = HealthMiddleware(raising(DependencyUnavailable("payments", retry_after)), healthy())

    answer = await ask_asgi(app, method)

    assert answer.status == 503
    assert answer["retry-after"] == header
    assert answer["cache-control"] == "no-store"
    assert (answer.body == b"") is (method == "HEAD")
    assert method == "HEAD" or answer["content-length"] == str(len(answer.body))
    assert "payments" not in repr(answer), "what the app depends on is nobody's business"


@pytest.mark.parametrize("unknown", [None, math.inf, math.nan, -math.inf])
async def test_where_nobody_knows_when_to_come_back_nothing_is_said(unknown: float | None) -> None:
    answer = await ask_asgi(
        HealthMiddleware(raising(DependencyUnavailable("payments", unknown)), healthy())
    )

    assert answer.status == 503
    assert "retry-after" not in answer


async def test_calls_made_at_once_of_which_some_are_refused() -> None:
    """What a task group makes of it: the one to wait longest for tells when to come back."""
    refused = [DependencyUnavailable("payments", 5), DependencyUnavailable("mail", None)]
    group = ExceptionGroup("", [ExceptionGroup("", refused), DependencyUnavailable("stock", 7)])

    answer = await ask_asgi(HealthMiddleware(raising(group), healthy()))
    assert (answer.status, answer["retry-after"]) == (503, "7")

    answer = await ask_asgi(HealthMiddleware(raising(ExceptionGroup("", refused[1:])), healthy()))
    assert answer.status == 503
    assert "retry-after" not in answer


async def test_calls_made_at_once_that_fail_for_other_reasons_too() -> None:
    group = ExceptionGroup("", [DependencyUnavailable("payments", 5), ConnectionError("refused")])
    exchange = AsgiExchange()

    with pytest.raises(ExceptionGroup) as caught:
        await HealthMiddleware(raising(group), healthy())(
            http_scope(), exchange.receive, exchange.send
        )

    assert caught.value is group
    assert not exchange.messages


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize(
    "error",
    [
        DependencyUnavailable("payments", 5),
        ExceptionGroup("", [DependencyUnavailable("payments", 5)]),
    ],
)
async def test_once_a_response_has_begun_the_error_is_the_servers(
    error: Exception, after: int
) -> None:
    exchange = AsgiExchange()

    with pytest.raises(type(error)) as caught:
        await HealthMiddleware(raising(error, after=after), healthy())(
            http_scope(), exchange.receive, exchange.send
        )

    assert caught.value is error
    assert len(exchange.messages) == after


async def test_hints_that_come_before_a_response_are_not_its_beginning() -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(hint)
        raise DependencyUnavailable("payments", 5)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await HealthMiddleware(app, healthy())(http_scope(), AsgiExchange().receive, send)
    assert sent[0] is hint
    assert [message.get("status") for message in sent[1:]] == [503, None]


async def test_one_request_that_fails_says_nothing_about_another() -> None:
    started, go_on = anyio.Event(), anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            started.set()
            await go_on.wait()
            raise DependencyUnavailable("payments", 5)
        await hello(scope, receive, send)

    wrapped = HealthMiddleware(app, healthy())
    answers = {}

    async def ask_slow() -> None:
        answers["slow"] = await ask_asgi(wrapped, path="/slow")

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(ask_slow)
            await started.wait()
            answers["other"] = await ask_asgi(wrapped, path="/other")
            go_on.set()
    assert answers["slow"].status == 503
    assert answers["other"].status == 200


async def test_an_unavailable_dependency_ends_a_websocket_as_any_error_does() -> None:
    app = HealthMiddleware(raising(DependencyUnavailable("payments", 5)), healthy())

    with pytest.raises(DependencyUnavailable):
        await app({"type": "websocket", "path": "/"}, no_receive, no_send)


async def test_a_guard_without_fallback_becomes_that_503() -> None:
    health = Health()
    payments = health.add("payments", well, critical=False)

    @payments.guard(max_concurrent=1)
    async def charge(again: bool) -> None:
        if again:
            await charge(False)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await charge(True)

    assert (await ask_asgi(HealthMiddleware(app, health))).status == 503


# Lifespan


class Lifespan:
    """The server's end of an app's life."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self.sent: list[Any] = []

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[list[Any]]:
        to_app, receive = anyio.create_memory_object_stream[Any](2)
        send, from_app = anyio.create_memory_object_stream[Any](9)

        async def sending(message: Any) -> None:
            self.sent.append(message)
            await send.send(message)

        async def live() -> None:
            with send:
                await self._app(self.scope, receive.receive, sending)

        with anyio.fail_after(PATIENCE), to_app, receive, from_app:
            async with anyio.create_task_group() as group:
                group.start_soon(live)
                await to_app.send({"type": "lifespan.startup"})
                await from_app.receive()
                yield self.sent
                await to_app.send({"type": "lifespan.shutdown"})
                await from_app.receive()


def living(log: list[str]) -> ASGIApp:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await hello(scope, receive, send)
            return
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["pool"] = "the app's own"
        log.append("app starts")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        log.append("app stops")
        await send({"type": "lifespan.shutdown.complete"})

    return app


class Logged:
    """A probe that tells when it runs and when it is closed."""

    is_async = True

    def __init__(self, log: list[str]) -> None:
        self._log = log
        self.ran = anyio.Event()

    async def __call__(self) -> None:
        self._log.append("probe runs")
        self.ran.set()

    async def aclose(self) -> None:
        self._log.append("probe closed")


@pytest.mark.parametrize("alone", [False, True])
async def test_background_checks_live_inside_of_the_apps_own_life(*, alone: bool) -> None:
    log: list[str] = []
    health = Health()
    probe = Logged(log)
    health.add("database", probe, interval=60)
    app: Any = HealthApp(health) if alone else HealthMiddleware(living(log), health)
    life = Lifespan(app)

    async with life() as sent:
        assert sent == [{"type": "lifespan.startup.complete"}]
        assert alone or life.scope["state"] == {"pool": "the app's own"}
        await probe.ran.wait()
        while (await ask_asgi(app, path="/health_check")).status != 200:  # noqa: ASYNC110 - bounded
            await anyio.sleep(0.001)

    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    expected = ["app starts", "probe runs", "probe closed", "app stops"]
    assert log == [entry for entry in expected if not (alone and entry.startswith("app"))]


async def test_where_the_server_has_no_lifespan_the_first_request_starts_them() -> None:
    health = Health()
    probe = Logged([])
    health.add("database", probe, interval=60)
    app = HealthMiddleware(hello, health)

    assert (await ask_asgi(app)).body == b"hello"
    assert not probe.ran.is_set()
    assert (await ask_asgi(app, path="/health_check")).body == b"FAILED: database (never_run)"
    with anyio.fail_after(PATIENCE):
        await probe.ran.wait()
        while (await ask_asgi(app, path="/health_check")).status != 200:  # noqa: ASYNC110 - bounded
            await anyio.sleep(0.001)
    await health.aclose()


async def test_an_app_that_knows_no_lifespan_says_so_to_the_server() -> None:
    async def old(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "I know nothing else"

    with pytest.raises(AssertionError, match="I know nothing else"):
        await HealthMiddleware(old, healthy())({"type": "lifespan"}, no_receive, no_send)


async def test_an_app_that_ignores_lifespan_is_left_alone() -> None:
    recorder = Recorder()

    await HealthMiddleware(recorder, healthy())({"type": "lifespan"}, no_receive, no_send)

    assert len(recorder.calls) == 1


async def test_an_app_that_fails_to_start_starts_nothing() -> None:
    log: list[str] = []
    health = Health()
    health.add("database", Logged(log), interval=60)
    sent = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def send(message: Any) -> None:
        sent.append(message)

    await HealthMiddleware(app, health)({"type": "lifespan"}, no_receive, send)
    await anyio.wait_all_tasks_blocked()

    assert sent == [{"type": "lifespan.startup.failed", "message": "no database"}]
    assert "probe runs" not in log


@pytest.mark.parametrize("alone", [False, True])
async def test_a_group_that_names_nothing_keeps_the_app_from_starting(*, alone: bool) -> None:
    health = healthy()
    health.group("mine")
    app: Any = HealthApp(health) if alone else HealthMiddleware(living([]), health)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ValueError, match="group 'mine' has no checks"):
        await app({"type": "lifespan", "state": {}}, receive, send)

    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert "group 'mine' has no checks" in message["message"]


# The app alone


async def test_alone_it_refuses_websockets_and_ignores_what_it_does_not_know() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    app = HealthApp(healthy())
    await app({"type": "websocket", "path": "/"}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    await app({"type": "webtransport"}, no_receive, no_send)


# asgiref's own test server, which knows asyncio alone


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("make", [lambda health: HealthMiddleware(living([]), health), HealthApp])
async def test_asgirefs_communicator_is_content(make: Callable[[Health], ASGIApp]) -> None:
    communicator: Any = ApplicationCommunicator  # it has no types
    app = make(healthy())
    life = communicator(app, {"type": "lifespan", "state": {}})
    await life.send_input({"type": "lifespan.startup"})
    assert await life.receive_output(PATIENCE) == {"type": "lifespan.startup.complete"}

    for path, status in [("/health_check", 200), ("/health_check/nothing", 404)]:
        exchange = communicator(app, http_scope("GET", path))
        start = await exchange.receive_output(PATIENCE)
        assert (start["type"], start["status"]) == ("http.response.start", status)
        body = await exchange.receive_output(PATIENCE)
        assert body["type"] == "http.response.body"
        await exchange.wait(PATIENCE)
        assert await exchange.receive_nothing()

    await life.send_input({"type": "lifespan.shutdown"})
    assert await life.receive_output(PATIENCE) == {"type": "lifespan.shutdown.complete"}
    await life.wait(PATIENCE)
