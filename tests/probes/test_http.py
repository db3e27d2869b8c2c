"""HTTPProbe against servers of the test's own, on asyncio and trio."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import logging
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest
import trustme

from healthmw.exceptions import ProbeFailedError
from healthmw.probes import ElasticsearchProbe, HTTPProbe
from tests.fakes import FakeServer, drip, garbage, http, receive, reset, silent
from tests.programs import run_program
from tests.waiting import foreign_threads, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.fakes import Talk

    Make = Callable[..., HTTPProbe]

pytestmark = pytest.mark.anyio

PASSWORD = "s3cr3t-b4it"


def answer(status: str = "200 OK", body: bytes = b"OKAY", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make a probe of a fake server, and close it after the test."""
    probes: list[HTTPProbe] = []

    def make(server: FakeServer, path: str = "/up", **options: Any) -> HTTPProbe:
        probes.append(HTTPProbe(f"http://127.0.0.1:{server.port}{path}", **options))
        return probes[-1]

    yield make
    for probe in probes:
        await probe.aclose()


async def test_well_over_one_connection(make: Make) -> None:
    seen: list[bytes] = []
    with FakeServer(http(answer(), seen=seen)) as server:
        probe = make(server, path="/up?full=1")
        for _ in range(5):
            found = await probe()
        assert isinstance(found, dict)
        assert set(found) == {"latency_seconds", "http_status"}
        assert found["http_status"] == 200
        assert server.accepted == 1
        await probe.aclose()
        await probe()
        assert server.accepted == 2
        await probe.aclose()
        server.wait_until_left()
    assert seen[0].startswith(b"GET /up?full=1 HTTP/1.1\r\n")


async def test_runs_at_once_are_all_answered(make: Make) -> None:
    seen: list[bytes] = []
    with FakeServer(http(answer(), seen=seen)) as server:
        probe = make(server, timeout=20)
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(probe)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("status", "options", "complaint"),
    [
        ("204 No Content", {}, None),
        ("500 Oops", {}, "status 500, expected 200 to 299"),
        ("404 Not Found", {"expect_status": 404}, None),
        ("200 OK", {"expect_status": (204, 404)}, "status 200, expected 204 or 404"),
        ("302 Found", {}, r"status 302 \(follow_redirects is off\)"),
        ("302 Found", {"expect_status": 302}, None),
    ],
)
async def test_the_status(
    make: Make, status: str, options: dict[str, Any], complaint: str | None
) -> None:
    with FakeServer(http(answer(status, b"", "Location: /login"))) as server:
        probe = make(server, **options)
        if complaint is None:
            await probe()
        else:
            with pytest.raises(ProbeFailedError, match=complaint):
                await probe()


@pytest.mark.parametrize(
    ("body", "options", "complaint"),
    [
        (b"OKAY", {"expect_body": "OKAY"}, None),
        (b"OKAY", {"expect_body": b"OKAY", "expect_in_body": b"KA"}, None),
        (b"OKAY\n", {"expect_body": "OKAY"}, "the body is not the expected one"),
        (b"", {"expect_body": ""}, None),
        (b"x", {"expect_body": ""}, "the body is not the expected one"),
        (b"all is wel\xc3\xa9", {"expect_in_body": "é"}, None),
        (b"all is ill", {"expect_in_body": "well"}, "does not contain what is expected$"),
        (b"x" * 100 + b"well", {"expect_in_body": "well", "max_body": 100}, "first 100 bytes"),
        (b"OKAY!", {"expect_body": "OKAY", "max_body": 4}, "the body is not the expected one"),
        (b"x" * 1_000_000, {}, None),
        (b"x" * 1_000_000, {"max_body": 0}, None),
    ],
)
async def test_the_body(
    make: Make, body: bytes, options: dict[str, Any], complaint: str | None
) -> None:
    with FakeServer(http(answer("200 OK", body))) as server:
        probe = make(server, **options)
        for _ in range(2):
            if complaint is None:
                await probe()
            else:
                with pytest.raises(ProbeFailedError, match=complaint):
                    await probe()


async def test_an_answer_without_end_costs_no_more_than_max_body(make: Make) -> None:
    sent = 0

    def talk(client: Any, stop: threading.Event) -> None:
        nonlocal sent
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\nOKAY")
        while not stop.is_set():
            sent += client.send(b"x" * 65536)

    with FakeServer(talk) as server:
        await make(server, max_body=1000, timeout=20, expect_in_body="OKAY")()
    assert sent < 50_000_000


async def test_a_compressed_body_is_not_unpacked(make: Make) -> None:
    seen: list[bytes] = []
    packed = answer("200 OK", b"\x1f\x8b...", "Content-Encoding: gzip")
    with FakeServer(http(packed, seen=seen)) as server:
        await make(server)()
        with pytest.raises(ProbeFailedError, match="encoded as 'gzip'"):
            await make(server, expect_body="OKAY")()
    assert b"accept-encoding: identity" in seen[0].lower()


async def test_head(make: Make) -> None:
    seen: list[bytes] = []
    with FakeServer(http(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", seen=seen)) as server:
        await make(server, method="head")()
    assert seen[0].startswith(b"HEAD ")


# What can go wrong on the way


async def test_refused(make: Make) -> None:
    with FakeServer(silent) as server:
        probe = make(server)
    with pytest.raises(ProbeFailedError, match=r"ConnectError: .*(refused|Connect call failed)"):
        await probe()


async def test_a_name_that_does_not_resolve() -> None:
    probe = HTTPProbe("http://nowhere.invalid/")
    with pytest.raises(ProbeFailedError, match=r"can't resolve nowhere\.invalid"):
        await probe()
    await probe.aclose()


@pytest.mark.parametrize(
    "talk",
    [silent, drip(b"HTTP/1.1 200 OK\r\n"), drip(answer("200 OK", b"x" * 100)), drip(b"X")],
)
async def test_no_answer_in_time(make: Make, talk: Any) -> None:
    with FakeServer(talk) as server:
        probe = make(server, timeout=0.2)
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(ProbeFailedError, match=r"no answer within 0\.2 s"):
                await probe()
            assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "talk", [garbage, reset, http(answer("200 OK", b"x" * 9, "Connection: close")[:-5])]
)
async def test_no_http(make: Make, talk: Any) -> None:
    with FakeServer(talk) as server, pytest.raises(ProbeFailedError, match="Error"):
        await make(server)()


async def test_a_server_that_comes_back_is_well_at_once(make: Make) -> None:
    with FakeServer(http(answer("200 OK", b"", "Connection: close"))) as server:
        probe = make(server)
        for _ in range(3):
            await probe()
    assert server.accepted == 3


async def test_a_hundred_failures_leave_nothing_behind(make: Make) -> None:
    with FakeServer(http(answer("500 Oops", b"x" * 1000))) as server:
        probe = make(server, max_body=10)
        threads = foreign_threads()
        for _ in range(100):
            with pytest.raises(ProbeFailedError):
                await probe()
        await probe.aclose()
        server.wait_until_left()
        await until(lambda: foreign_threads() <= threads)


# Redirects


def redirect(to: str, *headers: str) -> bytes:
    return answer("302 Found", b"", f"Location: {to}", *headers)


async def test_a_redirect_on_the_same_host_is_followed(make: Make) -> None:
    seen: list[bytes] = []
    pages = {"/here": redirect("/there"), "/there": answer()}
    with FakeServer(http(pages, seen=seen)) as server:
        probe = make(server, "/here", follow_redirects=True, expect_body="OKAY")
        await probe()
        assert server.accepted == 1
    assert [request.split()[1] for request in seen] == [b"/here", b"/there"]


async def test_a_redirect_elsewhere_is_not_followed_unless_allowed(make: Make) -> None:
    seen: list[bytes] = []
    with FakeServer(http(answer(), seen=seen)) as elsewhere:
        there = f"localhost:{elsewhere.port}"
        with FakeServer(http(redirect(f"http://{there}/up?token={PASSWORD}"))) as server:
            for allowed in ((), ("localhost",), ("127.0.0.1", "localhost:1")):
                probe = make(server, follow_redirects=True, allow_hosts=allowed)
                with pytest.raises(ProbeFailedError, match=f"redirected to http://{there}") as info:
                    await probe()
                assert PASSWORD not in str(info.value)
            assert elsewhere.accepted == 0
            await make(server, follow_redirects=True, allow_hosts=(there,), expect_body="OKAY")()
    assert len(seen) == 1


async def test_another_port_is_elsewhere(make: Make) -> None:
    with FakeServer(silent) as other:
        with FakeServer(http(redirect(f"http://127.0.0.1:{other.port}/"))) as server:
            probe = make(server, follow_redirects=True)
            with pytest.raises(ProbeFailedError, match="allow_hosts does not list"):
                await probe()
        assert other.accepted == 0


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:70/"])
async def test_a_redirect_to_no_http_is_not_followed(make: Make, to: str) -> None:
    with FakeServer(http(redirect(to))) as server:
        probe = make(server, follow_redirects=True, allow_hosts=("127.0.0.1",))
        with pytest.raises(ProbeFailedError, match="redirected to"):
            await probe()


async def test_headers_and_credentials_stay_with_the_host(make: Make) -> None:
    first: list[bytes] = []
    second: list[bytes] = []
    with FakeServer(http(answer(), seen=second)) as elsewhere:
        there = f"localhost:{elsewhere.port}"
        with FakeServer(http(redirect(f"http://{there}/"), seen=first)) as server:
            probe = HTTPProbe(
                f"http://app:{PASSWORD}@127.0.0.1:{server.port}/",
                headers={"X-Api-Key": PASSWORD},
                follow_redirects=True,
                allow_hosts=(there,),
            )
            await probe()
            await probe.aclose()
    assert PASSWORD.encode() in first[0]
    assert b"authorization: basic" in first[0].lower()
    assert PASSWORD.encode() not in second[0]
    assert b"authorization" not in second[0].lower()


async def test_what_a_request_must_have_goes_along_to_another_host() -> None:
    seen: list[bytes] = []
    with FakeServer(http(answer(body=b'{"status": "pass"}'), seen=seen)) as elsewhere:
        there = f"localhost:{elsewhere.port}"
        with FakeServer(http(redirect(f"http://{there}/"), seen=seen)) as server:
            probe = HTTPProbe(
                f"http://127.0.0.1:{server.port}/",
                headers={"host": "shop.test", "accept-encoding": "br", "X-Api-Key": PASSWORD},
                read_health=True,
                follow_redirects=True,
                allow_hosts=(there,),
            )
            await probe()
            await probe.aclose()
    here, beyond = (request.lower() for request in seen)
    assert b"host: shop.test\r\n" in here
    assert b"accept-encoding: br\r\n" in here
    assert b"identity" not in here
    assert f"host: {there}\r\n".encode() in beyond
    assert b"accept-encoding: identity\r\n" in beyond
    assert b"accept: application/health+json" in beyond
    assert PASSWORD.encode() not in beyond


async def test_redirects_come_to_an_end(make: Make) -> None:
    seen: list[bytes] = []
    with FakeServer(http(redirect("/up"), seen=seen)) as server:
        probe = make(server, follow_redirects=True)
        with pytest.raises(ProbeFailedError, match="more than 5 redirects"):
            await probe()
    assert len(seen) == 6


async def test_each_run_asks_without_cookies(make: Make) -> None:
    seen: list[bytes] = []
    with FakeServer(http(answer("200 OK", b"", "Set-Cookie: pinned=1"), seen=seen)) as server:
        probe = make(server)
        await probe()
        await probe()
    assert not any(b"pinned" in request for request in seen)


# TLS


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, host: str, *, expired: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    until = dt.datetime(2020, 1, 1, tzinfo=dt.UTC) if expired else None
    authority.issue_cert(host, not_after=until).configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_a_certificate_that_is_trusted(authority: trustme.CA) -> None:
    with FakeServer(http(answer()), server_context(authority, "localhost")) as server:
        url = f"https://localhost:{server.port}/"
        probe = HTTPProbe(url, verify=client_context(authority), timeout=20)
        await probe()
        await probe()
        assert server.accepted == 1
        await probe.aclose()


@pytest.mark.parametrize(
    ("host", "expired", "trusted", "complaint"),
    [
        ("localhost", False, False, "unable to get local issuer certificate|self-signed"),
        ("elsewhere.test", False, True, "Hostname mismatch"),
        ("localhost", True, True, "certificate has expired"),
    ],
)
async def test_a_certificate_that_is_not(
    authority: trustme.CA, host: str, *, expired: bool, trusted: bool, complaint: str
) -> None:
    context = server_context(authority, host, expired=expired)
    with FakeServer(http(answer()), context) as server:
        url = f"https://localhost:{server.port}/"
        verify = client_context(authority) if trusted else True
        strict = HTTPProbe(url, verify=verify, timeout=20)
        with pytest.raises(ProbeFailedError, match=complaint):
            await strict()
        await strict.aclose()
        lenient = HTTPProbe(url, verify=False, timeout=20)
        await lenient()
        await lenient.aclose()


async def test_a_tls_handshake_that_hangs() -> None:
    with FakeServer(silent) as server:
        probe = HTTPProbe(f"https://127.0.0.1:{server.port}/", timeout=0.3)
        with pytest.raises(ProbeFailedError, match="no answer within"):
            await probe()
        await probe.aclose()


async def test_a_redirect_from_https_to_http_is_not_followed(authority: trustme.CA) -> None:
    context = server_context(authority, "localhost")
    with FakeServer(silent) as plain:
        to = f"http://localhost:{plain.port}/"
        with FakeServer(http(redirect(to)), context) as server:
            probe = HTTPProbe(
                f"https://localhost:{server.port}/",
                verify=client_context(authority),
                follow_redirects=True,
                allow_hosts=(f"localhost:{plain.port}",),
                timeout=20,
            )
            with pytest.raises(ProbeFailedError, match="redirected to http://"):
                await probe()
            await probe.aclose()
        assert plain.accepted == 0


# Proxies


def tunnel(context: ssl.SSLContext | None, serve: Talk) -> Talk:
    """Be a proxy, and beyond it the host; one that hangs, where there is no context."""

    def talk(client: socket.socket, stop: threading.Event) -> None:
        receive(client, b"\r\n\r\n")
        client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        if context is None:
            silent(client, stop)
        else:
            with context.wrap_socket(client.dup(), server_side=True) as wrapped:
                serve(wrapped, stop)

    return talk


@pytest.fixture
def go_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeServer], None]:
    def go_by(proxy: FakeServer) -> None:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")

    return go_by


by_each_kind = pytest.mark.parametrize("kind", [HTTPProbe, ElasticsearchProbe])


@by_each_kind
async def test_a_host_beyond_a_proxy_that_hangs_is_asked_each_time(
    kind: Any, go_by: Callable[[FakeServer], None]
) -> None:
    with FakeServer(tunnel(None, silent)) as proxy:
        go_by(proxy)
        probe = kind("https://shop.test/", timeout=0.3)
        for _ in range(4):
            with pytest.raises(ProbeFailedError, match="no answer within"):
                await probe()
        assert proxy.accepted == 4
        proxy.wait_until_left(4)
        await probe.aclose()


@by_each_kind
async def test_a_host_beyond_a_proxy_that_gets_a_better_certificate(
    kind: Any, authority: trustme.CA, go_by: Callable[[FakeServer], None]
) -> None:
    served = http(answer(body=b'{"status": "green"}'))
    bad, good = (
        tunnel(server_context(authority, host), served) for host in ("elsewhere.test", "shop.test")
    )
    turns = iter([bad, bad, bad, bad, good])

    def talk(client: socket.socket, stop: threading.Event) -> None:
        next(turns)(client, stop)

    with FakeServer(talk) as proxy:
        go_by(proxy)
        probe = kind("https://shop.test/", verify=client_context(authority), timeout=20)
        for _ in range(4):
            with pytest.raises(ProbeFailedError, match="Hostname mismatch"):
                await probe()
        for _ in range(2):
            await probe()
        assert proxy.accepted == 5
        await probe.aclose()


async def test_the_apps_own_client_stays_open_where_a_host_beyond_a_proxy_fails(
    authority: trustme.CA,
) -> None:
    context = server_context(authority, "elsewhere.test")
    with FakeServer(tunnel(context, silent)) as proxy:
        verify = client_context(authority)
        by = f"http://127.0.0.1:{proxy.port}"
        async with httpx2.AsyncClient(verify=verify, proxy=by) as client:
            probe = HTTPProbe("https://shop.test/", client=client, timeout=20)
            with pytest.raises(ProbeFailedError, match="Hostname mismatch"):
                await probe()
            assert not client.is_closed


# Secrets, the app's own client, options


async def test_credentials_are_sent_and_never_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[bytes] = []
    with FakeServer(http(answer("503 No"), seen=seen)) as server:
        probe = HTTPProbe(
            f"http://app:{PASSWORD}@127.0.0.1:{server.port}/up?key={PASSWORD}",
            headers={"Authorization-Extra": PASSWORD},
        )
        assert repr(probe) == f"<HTTPProbe http://127.0.0.1:{server.port}/up>"
        caplog.clear()
        with pytest.raises(ProbeFailedError) as info:
            await probe()
        await probe.aclose()
    assert b"authorization: basic" in seen[0].lower()
    assert PASSWORD not in f"{info.value!r}{info.value}"
    about = [record.getMessage() for record in caplog.records if "app:" in record.getMessage()]
    assert about == []


async def test_the_apps_own_client_is_used_and_left_open() -> None:
    seen: list[bytes] = []
    with FakeServer(http(answer(), seen=seen)) as server:
        async with httpx2.AsyncClient(headers={"X-App": "1"}, cookies={"c": "1"}) as client:
            probe = HTTPProbe(f"http://127.0.0.1:{server.port}/", client=client)
            await probe()
            await probe.aclose()
            await probe()
            assert not client.is_closed
            assert dict(client.cookies) == {"c": "1"}
        assert server.accepted == 1
    assert b"x-app: 1" in seen[0].lower()


def test_new_loops_leave_no_connections() -> None:
    with FakeServer(http(answer())) as server:
        probe = HTTPProbe(f"http://127.0.0.1:{server.port}/")

        async def run() -> None:
            await probe()

        for backend in ("asyncio", "trio", "asyncio", "trio"):
            anyio.run(run, backend=backend)
        server.wait_until_left()
        assert server.accepted == 4


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost/up",
        "ftp://localhost/",
        "http:///up",
        "http://localhost:0/",
        f"http://app:{PASSWORD}/x@localhost/",
        f"http://localhost:{PASSWORD}/",
        "http://[::1/",
    ],
)
def test_bad_urls_are_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url ") as info:
        HTTPProbe(url)
    assert PASSWORD not in str(info.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"expect_status": ()}, "expect_status must be"),
        ({"expect_status": range(0)}, "expect_status must be"),
        ({"expect_status": 99}, "expect_status must be"),
        ({"expect_status": (200, 600)}, "expect_status must be"),
        ({"expect_status": "200"}, "expect_status must be"),
        ({"expect_status": None}, "expect_status must be"),
        ({"expect_status": range(1, 5)}, "expect_status must be"),
        ({"expect_status": range(200, 601)}, "expect_status must be"),
        ({"method": "HEAD", "expect_body": "OKAY"}, "HEAD has no body"),
        ({"method": "head", "expect_in_body": "OKAY"}, "HEAD has no body"),
        ({"method": None}, "method must be a str"),
        ({"verify": "/nope.pem"}, r"verify must be .* an ssl.SSLContext, not str"),
        ({"headers": {"X-Key": 1}}, "headers: the value of 'X-Key' must be a str, not int"),
        ({"headers": [("X-Key", PASSWORD)]}, "headers must be a mapping, not list"),
        ({"headers": {"X Key": PASSWORD}}, "headers: name='X Key' can't be the name of a header"),
        ({"expect_body": 5}, "expect_body must be str or bytes, not int"),
        ({"expect_in_body": 5}, "expect_in_body must be str or bytes, not int"),
        ({"max_body": "1"}, "max_body must be a whole number of bytes"),
        ({"max_body": 1e6}, "max_body must be a whole number of bytes"),
        ({"max_body": -1}, "max_body must be a whole number of bytes"),
        ({"max_body": 3, "expect_body": "OKAY"}, "max_body must have room"),
        ({"method": "POST", "follow_redirects": True}, "follow_redirects is for GET and HEAD"),
        ({"allow_hosts": ("http://other/",)}, "allow_hosts: 'http://other/' must be"),
        ({"allow_hosts": ("other:port",)}, "allow_hosts: 'other:port' must be"),
        ({"allow_hosts": ("",)}, "allow_hosts: '' must be"),
        ({"allow_hosts": ("other",)}, "allow_hosts is for follow_redirects=True"),
        ({"client": object()}, "client must be an httpx2.AsyncClient, not object"),
        ({"client": httpx2.AsyncClient}, "client must be an httpx2.AsyncClient, not type"),
        ({"timeout": 0}, "timeout=.* must be"),
        ({"verify": False, "client": httpx2.AsyncClient}, "verify belongs to the client"),
        ({"headers": {"X-Key": f"{PASSWORD}\n"}}, "headers: the value of 'X-Key'"),
        ({"headers": {"X-Key": f" {PASSWORD}"}}, "headers: the value of 'X-Key'"),
        ({"headers": {"X-Key": f"{PASSWORD}é"}}, "headers: the value of 'X-Key'"),
    ],
)
def test_bad_options(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as info:
        HTTPProbe("http://localhost/", **options)
    assert PASSWORD not in str(info.value)


def test_a_single_host_is_a_mistake() -> None:
    with pytest.raises(TypeError, match=r"write \('other',\)"):
        HTTPProbe("http://localhost/", allow_hosts="other")


@pytest.mark.parametrize(
    "probe", ["HTTPProbe({url!r})", "ElasticsearchProbe({url!r})"], ids=["http", "elasticsearch"]
)
def test_the_first_run_loads_nothing_that_takes_a_while(probe: str) -> None:
    """It would do so on the app's event loop."""
    out = run_program(
        f"""
from healthmw.probes import ElasticsearchProbe, HTTPProbe

probe = {probe.format(url="http://127.0.0.1:1/")}
before = set(sys.modules)

async def main():
    try:
        await probe()
    except Exception:
        pass

asyncio.run(main())
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(loaded & {{"httpx2", "httpcore2", "h11", "h2", "hpack", "trio"}})
"""
    )
    assert out == "set()\n"


def _closing_kept_connections(request_limit: int = 1) -> tuple[socket.socket, list[int]]:
    """Return a server that closes each connection under the request after `request_limit`."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[int] = []
    body = b'{"status": "green", "number_of_nodes": 1}'

    def converse(client: socket.socket) -> None:
        with client:
            for number in itertools.count():
                if not client.recv(65536):
                    return
                asked.append(number)
                if number == request_limit:
                    return
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                client.sendall(head.encode() + body)

    def serve() -> None:
        with contextlib.suppress(OSError):  # it is over
            while True:
                threading.Thread(target=converse, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener, asked


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [HTTPProbe, ElasticsearchProbe])
async def test_a_kept_connection_that_the_server_closes_is_no_failure(kind: Any) -> None:
    listener, asked = _closing_kept_connections()
    with listener:
        probe = kind(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        for _ in range(3):
            assert await probe()
        await probe.aclose()
    assert asked == [0, 1, 0, 1, 0]


@pytest.mark.anyio
async def test_a_new_connection_that_the_server_closes_is_one(anyio_backend_name: str) -> None:
    listener, asked = _closing_kept_connections(0)
    with listener:
        probe = HTTPProbe(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        with pytest.raises(ProbeFailedError, match="disconnected"):
            await probe()
        post = HTTPProbe(f"http://127.0.0.1:{listener.getsockname()[1]}/", method="POST")
        with pytest.raises(ProbeFailedError, match="disconnected"):
            await post()
        await probe.aclose()
        await post.aclose()
    assert asked == [0, 0]
