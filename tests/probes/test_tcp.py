"""TCPProbe against listeners of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from healthmw.exceptions import ProbeFailedError
from healthmw.probes import TCPProbe
from tests.fakes import FakeServer, full_listener, silent
from tests.waiting import PATIENCE

pytestmark = pytest.mark.anyio


async def test_a_listener_is_well_and_the_connection_closed() -> None:
    with FakeServer(silent) as server:
        found = await TCPProbe("127.0.0.1", server.port)()
        assert set(found) == {"latency_seconds"}
        assert 0 <= float(found["latency_seconds"]) < 10
        await TCPProbe(f"127.0.0.1:{server.port}")()
        await TCPProbe(f"localhost:{server.port}")()
        server.wait_until_left(by=3)
    assert server.accepted == 3


async def test_refused() -> None:
    with FakeServer(silent) as server:
        port = server.port
    with pytest.raises(ProbeFailedError, match=r"can't connect: .*Errno 111|refused"):
        await TCPProbe("127.0.0.1", port)()


async def test_a_port_of_the_systems_own_choice_is_no_listener(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a client asks, time and again, for a port that the system gives to clients."""

    async def connect_tcp(*_: object) -> Any:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        taken.append(ToItself(sock))
        return taken[-1]

    class ToItself:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def extra(self, attribute: object, default: object = None) -> object:
            is_local = attribute is SocketAttribute.local_address
            return self.sock.getsockname() if is_local else self.sock.getpeername()

        async def aclose(self) -> None:
            self.sock.close()

    taken: list[ToItself] = []
    monkeypatch.setattr(anyio, "connect_tcp", connect_tcp)
    with pytest.raises(ProbeFailedError, match="can't connect: nobody listens there"):
        await TCPProbe("127.0.0.1", 50000)()
    assert [one.sock.fileno() for one in taken] == [-1]  # closed


async def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(ProbeFailedError, match=r"can't resolve nowhere\.invalid"):
        await TCPProbe("nowhere.invalid:80")()


async def test_no_answer_at_all() -> None:
    with full_listener() as port:
        started = time.monotonic()
        with pytest.raises(ProbeFailedError, match=r"no connection within 0\.2 s"):
            await TCPProbe("127.0.0.1", port, timeout=0.2)()
        assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("host", "port", "shown"),
    [
        ("db.internal:5432", None, "<TCPProbe db.internal:5432>"),
        ("[::1]:80", None, "<TCPProbe [::1]:80>"),
        ("::1", 80, "<TCPProbe [::1]:80>"),
    ],
)
def test_the_ways_to_say_where(host: str, port: int | None, shown: str) -> None:
    assert repr(TCPProbe(host, port)) == shown


@pytest.mark.parametrize(
    ("host", "port", "complaint"),
    [
        ("db.internal", None, "host must be 'HOST:PORT'"),
        ("::1:80", None, "host must be 'HOST:PORT'"),
        ("", 80, "host must not be empty"),
        ("db.internal", 0, "port=0 must be 1 or more"),
        ("db.internal:65536", None, "port=65536 must be 65535 or less"),
        ("db.internal", "80", "port must be a whole number, not str"),
        ("db.internal", 80.5, "port must be a whole number, not float"),
        (5, None, "host must be a str, not int"),
    ],
)
def test_bad_options(host: Any, port: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TCPProbe(host, port)


def test_the_timeout_is_checked() -> None:
    with pytest.raises(ValueError, match="timeout"):
        TCPProbe("db.internal:1", timeout=0)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["::1", "127.0.0.1"], ["127.0.0.1"] * 2])
async def test_a_host_is_connected_to_while_the_app_has_taken_all_threads(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop resolves names in its default executor, which the app may have filled."""
    usual = socket.getaddrinfo

    def look_up(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if host in {"db.test", b"db.test"}:
            return [entry for one in addresses for entry in usual(one, port, *rest, **options)]
        return usual(host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    released = threading.Event()
    waiting = []
    with contextlib.suppress(RuntimeError):  # trio has no such executor
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(None, released.wait, PATIENCE) for _ in range(64)]
    try:
        with FakeServer(silent) as server:
            probe = TCPProbe("db.test", server.port, timeout=PATIENCE)
            await probe()
        with pytest.raises(ProbeFailedError, match="can't connect"):
            await probe()
    finally:
        released.set()
        for one in waiting:
            await one
