"""HTTPProbe on the health endpoint of another service, and its bounds in time."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from healthmw import Degraded, Health
from healthmw.exceptions import ProbeFailedError
from healthmw.probes import HTTPProbe
from healthmw.testing import ScriptedProbe
from healthmw.wsgi import HealthApp
from tests.fakes import FakeServer, http

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from wsgiref.simple_server import WSGIServer

pytestmark = pytest.mark.anyio

PATIENT = 20.0


def response(document: object, status: str = "200 OK") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


async def ask(answer: bytes, seen: list[bytes] | None = None, **options: Any) -> Any:
    with FakeServer(http(answer, seen=seen)) as server:
        given: dict[str, Any] = {"read_health": True, "timeout": PATIENT}
        probe = HTTPProbe(f"http://127.0.0.1:{server.port}/health", **given | options)
        try:
            return await probe()
        finally:
            await probe.aclose()


PARTS = {
    "database:responseTime": [{"status": "pass"}],
    "database:connections": [{"status": "warn"}, {"status": "pass"}],
    "queue": {"status": "pass"},
    "uptime": [{"observedValue": 3}],
    ":odd": [{"status": "pass"}, "text", None],
}


@pytest.mark.parametrize("word", ["pass", "ok", "UP"])
async def test_a_service_that_is_well(word: str) -> None:
    seen: list[bytes] = []
    found = await ask(response({"status": word, "checks": PARTS}), seen)
    del found["latency_seconds"]
    assert found == {
        "http_status": 200,
        "database_status": "warn",
        "queue_status": "pass",
        ":odd_status": "pass",
    }
    assert b"application/health+json" in seen[0]


async def test_a_service_that_warns() -> None:
    found = await ask(response({"status": "warn", "checks": PARTS, "output": "hunter2"}))
    assert isinstance(found, Degraded)
    assert found.detail == "it says warn: database (warn)"
    assert found.measurements["database_status"] == "warn"
    assert "hunter2" not in str(found)


@pytest.mark.parametrize("word", ["fail", "error", "down"])
@pytest.mark.parametrize("status", ["200 OK", "503 Service Unavailable"])
async def test_a_service_that_fails(word: str, status: str) -> None:
    parts = {"disk": [{"status": "fail", "output": "hunter2"}], **PARTS}
    with pytest.raises(ProbeFailedError) as info:
        await ask(response({"status": word, "checks": parts}, status))
    assert str(info.value) == "it says fail: disk (fail), database (warn)"


async def test_many_parts_at_fault_are_not_all_named() -> None:
    parts = {f"part-{number}": [{"status": "fail"}] for number in range(13)}
    with pytest.raises(ProbeFailedError, match=r"part-9 \(fail\), and 3 more$"):
        await ask(response({"status": "fail", "checks": parts}))


@pytest.mark.parametrize("checks", [None, [], "text"])
async def test_no_parts_are_told(checks: object) -> None:
    found = await ask(response({"status": "pass", "checks": checks}))
    assert set(found) == {"latency_seconds", "http_status"}
    with pytest.raises(ProbeFailedError, match=r"^it says fail$"):
        await ask(response({"status": "fail", "checks": checks}))


async def test_a_pass_that_its_status_contradicts() -> None:
    with pytest.raises(ProbeFailedError, match="it says pass, with status 503"):
        await ask(response({"status": "pass"}, "503 Service Unavailable"))


@pytest.mark.parametrize(
    "body",
    [b"OKAY", b"[1]", b'{"status": 1}', b'{"status": "fine"}', b"\xff", b"[" * 100_000],
    ids=["text", "list", "number", "word", "bytes", "deep"],
)
async def test_what_is_no_health_document(body: bytes) -> None:
    with pytest.raises(ProbeFailedError, match="status 200, and the body is not health"):
        await ask(response(body), max_body=200_000)


@pytest.mark.parametrize("status", ["200 OK", "503 Service Unavailable"])
async def test_a_document_that_is_longer_than_what_is_read(status: str) -> None:
    answer = response({"status": "pass", "checks": PARTS, "output": "x" * 100}, status)
    told = r"status \d{3}, and its body is longer than max_body \(100 bytes\)"
    with pytest.raises(ProbeFailedError, match=told):
        await ask(answer, max_body=100)


async def test_headers_of_the_users_own_win() -> None:
    seen: list[bytes] = []
    await ask(response({"status": "pass"}), seen, headers={"Accept": "application/vnd.up+json"})
    assert b"application/vnd.up+json" in seen[0]
    assert b"health+json" not in seen[0]


# Another healthmw


@pytest.fixture
def remote() -> Iterator[tuple[str, ScriptedProbe, ScriptedProbe]]:
    """Serve a healthmw with a critical check and another."""
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None: ...

    database, search = ScriptedProbe(is_async=False), ScriptedProbe(is_async=False)
    health = Health(max_age=0)
    health.add("database", database)
    health.add("search", search, critical=False)
    server: WSGIServer = make_server(
        "127.0.0.1", 0, HealthApp(health, show="names"), handler_class=Quiet
    )
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/health_check", database, search
    server.shutdown()
    server.server_close()
    thread.join(PATIENT)


async def test_it_reads_another_healthmw(
    remote: tuple[str, ScriptedProbe, ScriptedProbe],
) -> None:
    url, database, search = remote
    probe = HTTPProbe(url, read_health=True, timeout=PATIENT)
    found = await probe()
    assert isinstance(found, dict)
    assert found["database_status"] == found["search_status"] == "pass"
    search.play(ConnectionError("refused"))
    degraded = await probe()
    assert isinstance(degraded, Degraded)
    assert degraded.detail == "it says warn: search (fail)"
    database.play(ConnectionError("refused"))
    with pytest.raises(ProbeFailedError, match=r"it says fail: database \(fail\), search \(fail\)"):
        await probe()
    await probe.aclose()


# Time


def slow(seconds: float) -> Any:
    def talk(client: Any, stop: threading.Event) -> None:
        stop.wait(seconds)
        http(response({"status": "pass"}))(client, stop)

    return talk


@pytest.mark.parametrize("read_health", [False, True])
async def test_an_answer_that_takes_its_time(read_health: bool) -> None:
    with FakeServer(slow(0.1)) as server:

        async def run(**bounds: float) -> Any:
            options: dict[str, Any] = {"read_health": read_health, "timeout": PATIENT}
            probe = HTTPProbe(f"http://127.0.0.1:{server.port}/", **options | bounds)
            try:
                return await probe()
            finally:
                await probe.aclose()

        assert isinstance(await run(degraded_above=PATIENT), dict)
        found = await run(degraded_above=0.05)
        assert isinstance(found, Degraded)
        assert float(found.measurements["latency_seconds"]) >= 0.1
        with pytest.raises(ProbeFailedError, match=r"^the answer took "):
            await run(degraded_above=0.02, failed_above=0.05)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda url: HTTPProbe(url, degraded_above=-1), "degraded_above must be"),
        (
            lambda url: HTTPProbe(url, degraded_above=2, failed_above=1),
            "degraded_above=2 is more than failed_above=1",
        ),
        (lambda url: HTTPProbe(url, read_health=True, method="HEAD"), "read_health=True reads"),
        (lambda url: HTTPProbe(url, read_health=True, expect_body="x"), "read_health=True reads"),
    ],
)
def test_bad_options(make: Callable[[str], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make("http://localhost/")
