"""The WSGI middleware and app: what is WSGI's own, and what must pass through untouched."""

from __future__ import annotations

import io
import math
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from healthmw import DependencyUnavailable, Health
from healthmw.wsgi import HealthApp, HealthMiddleware
from tests.transports import WsgiExchange, ask_wsgi, environ_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import WSGIApplication

PATIENCE = 10.0  # seconds; far more than any of this takes
HEADERS = [("Content-Type", "text/plain")]


def well() -> None:
    """Be a probe that passes."""


def healthy(**options: Any) -> Health:
    health = Health(**options)
    health.add("database", well)
    return health


def hello(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", list(HEADERS))
    return [b"hello"]


def no_start(*args: Any) -> Any:
    pytest.fail("nobody may begin a response here")


# Everything else passes through


class Closing:
    """A body that nobody but a server may iterate over or close."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        pytest.fail("only the server iterates")

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    "body", [[b"a", b"b"], (b"a",), b"", Closing(), iter([b"a"]), map(bytes, [b"a"]), FileWrapper]
)
def test_a_request_its_start_response_and_its_body_are_handed_on_as_they_are(body: Any) -> None:
    if body is FileWrapper:
        body = FileWrapper(io.BytesIO(b"file"))
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.extend([environ, start_response])
        return body

    environ = environ_for("POST", "/upload", query="a=b")
    before = dict(environ)

    assert HealthMiddleware(app, healthy())(environ, no_start) is body
    assert seen[0] is environ
    assert environ == before
    assert seen[1] is no_start
    assert getattr(body, "closed", 0) == 0


def test_the_app_is_not_told_of_what_the_endpoint_answers() -> None:
    app = HealthMiddleware(lambda *_: pytest.fail("the app is called"), healthy())

    for method in ("GET", "HEAD", "POST"):
        for path in ("/health_check", "/health_check/live", "/health_check/nothing"):
            ask_wsgi(app, method, path)


def test_the_servers_own_way_to_send_files_is_found() -> None:
    class Handler(SimpleHandler):
        files = 0

        def sendfile(self) -> bool:
            self.files += 1
            return False

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", list(HEADERS))
        return environ["wsgi.file_wrapper"](io.BytesIO(b"from a file"))

    out = io.BytesIO()
    handler = Handler(io.BytesIO(), out, io.StringIO(), environ_for())
    handler.run(HealthMiddleware(app, healthy()))

    assert handler.files == 1
    assert out.getvalue().endswith(b"\r\n\r\nfrom a file")


@pytest.mark.parametrize("path", ["/", "/health_check", "/health_check/nothing"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("kind", ["list", "generator"])
def test_wsgirefs_validator_is_content_on_both_sides(path: str, method: str, kind: str) -> None:
    def generator(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield from hello(environ, start_response)

    inner: WSGIApplication = validator(hello if kind == "list" else generator)
    outer = validator(HealthMiddleware(inner, healthy()))

    assert WsgiExchange().serve(outer, environ_for(method, path)).status < 500
    alone = WsgiExchange().serve(validator(HealthApp(healthy())), environ_for(method, path))
    assert alone.status in {200, 404, 405}


def test_what_is_written_through_start_responses_callable_goes_out() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", list(HEADERS))
        write(b"one ")
        write(b"two ")
        return [b"three"]

    assert ask_wsgi(HealthMiddleware(app, healthy())).body == b"one two three"


def test_an_app_may_begin_its_response_anew() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", list(HEADERS))
        try:
            raise ValueError("found out late")
        except ValueError:
            start_response("500 Internal Server Error", list(HEADERS), sys.exc_info())
        return [b"sorry"]

    assert ask_wsgi(HealthMiddleware(app, healthy())).status == 500


class Scripted:
    """A generator app, and what became of it."""

    def __init__(self, *, error: BaseException | None = None, late: bool = False) -> None:
        self.log: list[str] = []
        self._error = error
        self._late = late

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        self.log.append("begun")
        try:
            if self._error is not None and not self._late:
                raise self._error
            start_response("200 OK", list(HEADERS))
            for piece in (b"a", b"b", b"c"):
                self.log.append(f"made {piece.decode()}")
                yield piece
                if self._error is not None:
                    raise self._error
        finally:
            self.log.append("ended")


def test_a_generator_app_goes_on_piece_by_piece() -> None:
    app = Scripted()
    exchange = WsgiExchange()
    body = HealthMiddleware(app, healthy())(environ_for(), exchange.start_response)

    for piece in body:
        exchange.write(piece)
        assert app.log[-1] == f"made {piece.decode()}", "no piece is made before it is wanted"
    assert app.log[-1] == "ended"
    assert exchange.answer().body == b"abc"


def test_closing_the_body_closes_a_generator_app() -> None:
    app = Scripted()
    body: Any = HealthMiddleware(app, healthy())(environ_for(), WsgiExchange().start_response)

    assert next(body) == b"a"
    assert "ended" not in app.log
    body.close()
    assert app.log[-1] == "ended"
    body.close()
    assert app.log.count("ended") == 1


def test_a_generator_app_that_nobody_iterates_never_begins() -> None:
    app = Scripted()
    body: Any = HealthMiddleware(app, healthy())(environ_for(), no_start)

    body.close()
    assert app.log == []


@pytest.mark.parametrize("kind", ["function", "generator", "generator, late"])
def test_what_the_app_raises_comes_out_as_it_is(kind: str) -> None:
    error = RuntimeError("the app's own")

    def function(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise error

    app: Any = function if kind == "function" else Scripted(error=error, late="late" in kind)
    exchange = WsgiExchange()
    with pytest.raises(RuntimeError) as caught:
        exchange.serve(HealthMiddleware(app, healthy()), environ_for())

    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None
    assert exchange.chunks == ([b"a"] if "late" in kind else [])


def test_options_are_looked_at_when_the_app_is_made() -> None:
    bad: dict[str, Any] = {"path": "health_check"}
    with pytest.raises(ValueError, match=r"path='health_check' must begin with '/'"):
        HealthMiddleware(hello, healthy(), **bad)
    with pytest.raises(TypeError):
        HealthMiddleware(hello, healthy(), "/health_check")  # type: ignore[call-arg] # what is tested


# DependencyUnavailable


def raising(error: Exception, *, after: str = "") -> WSGIApplication:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        if after:
            write = start_response("200 OK", [*HEADERS, ("X-From", "the app")])
            if after == "written":
                write(b"so far")
        raise error

    return app


def every_kind(error: Exception) -> list[WSGIApplication]:
    return [raising(error), raising(error, after="start_response"), Scripted(error=error)]


@pytest.mark.parametrize(
    ("retry_after", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (29.1, "30"), (3600, "3600")]
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_an_unavailable_dependency_is_a_503_that_says_when_to_come_back(
    retry_after: float, header: str, method: str
) -> None:
    for app in every_kind(DependencyUnavailable("payments", retry_after)):
        answer = ask_wsgi(HealthMiddleware(app, healthy()), method)

        assert answer.status == 503
        assert answer["retry-after"] == header
        assert answer["cache-control"] == "no-store"
        assert "x-from" not in answer, "nothing of the response that was not begun is left"
        assert (answer.body == b"") is (method == "HEAD")
        assert method == "HEAD" or answer["content-length"] == str(len(answer.body))
        assert "payments" not in repr(answer), "what the app depends on is nobody's business"


@pytest.mark.parametrize("unknown", [None, math.inf, math.nan])
def test_where_nobody_knows_when_to_come_back_nothing_is_said(unknown: float | None) -> None:
    for app in every_kind(DependencyUnavailable("payments", unknown)):
        answer = ask_wsgi(HealthMiddleware(app, healthy()))

        assert answer.status == 503
        assert "retry-after" not in answer


@pytest.mark.parametrize(
    ("make", "sent"),
    [
        (lambda error: raising(error, after="written"), [b"so far"]),
        (lambda error: Scripted(error=error, late=True), [b"a"]),
    ],
)
def test_once_a_response_has_begun_the_error_is_the_servers(
    make: Callable[[Exception], WSGIApplication], sent: list[bytes]
) -> None:
    error = DependencyUnavailable("payments", 5)
    exchange = WsgiExchange()

    with pytest.raises(DependencyUnavailable) as caught:
        exchange.serve(HealthMiddleware(make(error), healthy()), environ_for())

    assert caught.value is error
    assert exchange.chunks == sent


def test_a_guard_without_fallback_becomes_that_503() -> None:
    health = Health()
    payments = health.add("payments", well, critical=False)

    @payments.guard(max_concurrent=1)
    def charge(again: bool) -> None:
        if again:
            charge(False)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        charge(True)
        return hello(environ, start_response)

    assert ask_wsgi(HealthMiddleware(app, health)).status == 503


# A verdict in memory, and how it gets there


class Blocker:
    """A probe that holds the process's own event loop until it is told to let go."""

    def __init__(self) -> None:
        self.holds = threading.Event()
        self.let_go = threading.Event()

    async def __call__(self) -> None:
        self.holds.set()
        self.let_go.wait(PATIENCE)

    def __enter__(self) -> Self:
        self._health = Health(deadline=2 * PATIENCE)
        self._health.add("blocker", self, timeout=2 * PATIENCE)
        self._thread = threading.Thread(target=self._health.run_sync)
        self._thread.start()
        assert self.holds.wait(PATIENCE)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.let_go.set()
        self._thread.join(PATIENCE)


@pytest.mark.parametrize("make", ["middleware", "app"])
def test_a_verdict_in_memory_is_told_without_a_thread_or_the_event_loop(
    make: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    health = Health(max_age=3600)
    health.add("database", lambda: ran.append(1))
    app: Any = HealthMiddleware(hello, health) if make == "middleware" else HealthApp(health)
    paths = ("/health_check", "/health_check/live", "/health_check/database/")
    for path in paths:
        assert ask_wsgi(app, path=path).body == b"OKAY"
        assert ask_wsgi(app, "HEAD", path).status == 200

    with Blocker() as blocker:
        monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("it is started"))
        for path in paths:
            assert ask_wsgi(app, path=path).body == b"OKAY"
            assert ask_wsgi(app, "HEAD", path).status == 200
        assert not blocker.let_go.is_set()
    assert ran == [1]


def test_a_verdict_in_memory_is_rendered_once() -> None:
    health = Health(max_age=3600)
    health.add("database", lambda: 1 / 0)
    app = HealthMiddleware(hello, health)
    ask_wsgi(app, path="/health_check")

    bodies: list[Any] = [
        app(environ_for(path="/health_check"), WsgiExchange().start_response) for _ in range(3)
    ]

    assert bodies[0] == [b"FAILED: database (failed)"]
    assert bodies[0][0] is bodies[1][0] is bodies[2][0]


@pytest.mark.parametrize("path", ["/health_check", "/health_check/nothing"])
def test_who_changes_an_answer_on_its_way_out_changes_that_one_only(path: str) -> None:
    inner = HealthMiddleware(hello, healthy(max_age=3600))

    def tagging(environ: Any, start_response: Any) -> Any:
        def tagged(status: str, headers: Any, exc_info: Any = None) -> Any:
            headers.append(("Request-Id", "7"))
            return start_response(status, headers)

        body: Any = inner(environ, tagged)
        body.append(b"!")
        return body

    first = ask_wsgi(tagging, path=path)
    for _ in range(3):
        assert ask_wsgi(tagging, path=path) == first
    assert first["request-id"] == "7"


def test_nothing_is_started_before_the_first_request_at_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health = Health()
    ran = threading.Event()
    health.add("database", ran.set, interval=60)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda self: pytest.fail("it is started"))
        app = HealthMiddleware(hello, health)
        assert ask_wsgi(app).body == b"hello"
    assert not ran.is_set()

    assert ask_wsgi(app, path="/health_check").status in {200, 503}
    assert ran.wait(PATIENCE)
    until = time.monotonic() + PATIENCE
    while ask_wsgi(app, path="/health_check").status != 200:
        assert time.monotonic() < until
    monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("it is started"))
    assert ask_wsgi(app, path="/health_check").body == b"OKAY"


def test_threads_that_ask_at_once_share_one_run() -> None:
    running = threading.Event()
    go_on = threading.Event()
    ran = []

    def probe() -> None:
        ran.append(1)
        running.set()
        go_on.wait(PATIENCE)

    health = Health(deadline=2 * PATIENCE)
    health.add("database", probe, timeout=2 * PATIENCE)
    app = HealthMiddleware(hello, health)

    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(ask_wsgi, app, path="/health_check") for _ in range(20)]
        assert running.wait(PATIENCE)
        assert not any(answer.done() for answer in answers)
        go_on.set()
        assert {answer.result(PATIENCE).body for answer in answers} == {b"OKAY"}
    assert ran == [1]


def test_a_request_line_that_a_sloppy_server_leaves_out_is_the_apps() -> None:
    environ = environ_for()
    del environ["PATH_INFO"], environ["QUERY_STRING"]  # PEP 3333 lets both be absent

    assert WsgiExchange().serve(HealthMiddleware(hello, healthy()), environ).body == b"hello"
    assert WsgiExchange().serve(HealthApp(healthy()), environ).body == b"OKAY"
