"""The side server: the endpoint on a port of its own, whatever state the app is in."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from healthmw import Health, Status
from healthmw._watch import Watch
from healthmw.testing import ScriptedProbe
from tests.programs import run_program
from tests.waiting import PATIENCE, InThread, until, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from healthmw.side import SideServer

OKAY = (200, b"OKAY")


class Unix(http.client.HTTPConnection):
    """A connection to a UNIX socket."""

    def __init__(self, file: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._file = str(file)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._file)


def get(
    at: SideServer | http.client.HTTPConnection, path: str = "/health_check", method: str = "GET"
) -> tuple[int, bytes]:
    if isinstance(at, http.client.HTTPConnection):
        connection = at
    else:
        assert at.port is not None
        connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def raw(server: SideServer, request: bytes) -> bytes:
    """Send `request` and return all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(request)
        answer = b""
        while more := client.recv(65536):
            answer += more
        return answer


@pytest.fixture
def health() -> Health:
    health = Health(max_age=0)
    health.add("database", ScriptedProbe())
    return health


@pytest.fixture
def server(health: Health) -> Iterator[SideServer]:
    with health.serve(port=0) as server:
        yield server


# What it answers


def test_it_answers_as_the_endpoint_does(health: Health, server: SideServer) -> None:
    assert get(server) == OKAY
    assert get(server, "/health_check/database") == OKAY
    assert get(server, "/health%5Fcheck/live?verbose")[0] == 200
    assert get(server, "/") == get(server, "/ready") == get(server, "/live") == OKAY
    assert get(server, "/nothing")[0] == 404
    assert get(server, method="HEAD") == (200, b"")
    assert get(server, method="POST")[0] == 405
    assert json.loads(get(server, "/?format=json")[1])["status"] == "pass"
    health.add("search", ScriptedProbe(OSError("gone")))
    assert get(server) == (503, b"FAILED: search (failed)")
    health.drain()
    assert get(server)[0] == 503
    assert get(server, "/live") == OKAY


def test_it_shows_everything_to_whom_the_app_knows(health: Health) -> None:
    async def authorize(caller: Any) -> bool:
        await anyio.lowlevel.checkpoint()
        return bool(caller.header("x-who") == "ops" and caller.peer == "127.0.0.1")

    with health.serve(port=0, path="/up", show="summary", authorize=authorize) as server:
        assert get(server, "/up/database")[0] == 404
        asked = raw(server, b"GET /up/database HTTP/1.1\r\nhost: x\r\nX-Who:  ops \t\r\n\r\n")
    assert asked.startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_authorizer_that_hangs_grants_nothing_and_the_answer_leaves(health: Health) -> None:
    async def authorize(caller: Any) -> bool:
        if caller.path == "/hang":
            await anyio.sleep_forever()
        return False

    health.deadline = 0.1
    with health.serve(port=0, authorize=authorize) as server:
        assert raw(server, b"GET /hang HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404 ")
        assert raw(server, b"GET /live HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_defect_of_our_own_is_logged(
    health: Health, server: SideServer, caplog: pytest.LogCaptureFixture
) -> None:
    server._endpoint.answer = None  # type: ignore[assignment,method-assign]  # as no user could
    assert raw(server, b"GET / HTTP/1.1\r\n\r\n") == b""
    until_sync(lambda: "the side server failed over a request" in caplog.text)


def test_what_it_fails_over_is_logged_without_its_password(
    server: SideServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("can't reach postgresql://shop:hunter2@db/shop")

    monkeypatch.setattr(server._endpoint, "answer", broken)
    assert raw(server, b"GET / HTTP/1.1\r\n\r\n") == b""
    until_sync(lambda: "the side server failed over a request" in caplog.text)
    assert "postgresql://shop:***@db/shop" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET http://app.example/health_check HTTP/1.1\r\nHost: app.example\r\n\r\n", 200),
        (b"GET http://app.example HTTP/1.0\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000, 405),
        (b"GET /health_check\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 70_000, 431),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else "",
)
def test_a_request_is_read_by_the_letter(
    server: SideServer, request_head: bytes, status: int
) -> None:
    answer = raw(server, request_head)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"\r\nConnection: close\r\n" in answer


def test_who_says_nothing_or_half_of_it_hears_nothing(server: SideServer) -> None:
    for said in (b"", b"GET / HT"):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""


@pytest.mark.parametrize("wrong", [{}, {"port": 1, "unix_socket": "x"}, {"port": 65536}])
def test_an_address_is_one_port_or_one_socket(health: Health, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="port"):
        health.serve(**wrong)


@pytest.mark.parametrize("port", [True, "8081", 80.0])
def test_a_port_is_a_number(health: Health, port: Any) -> None:
    with pytest.raises(TypeError, match="port must be an int"):
        health.serve(port=port)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"port": 0, "host": 5}, "host must be a str, not int"),
        ({"port": 0, "host": None}, "host must be a str, not NoneType"),
        ({"port": 0, "host": ""}, "host is empty"),
        ({"unix_socket": 5}, "unix_socket must be a path, not int"),
        ({"unix_socket": b"health.sock"}, "unix_socket must be a path, not bytes"),
        ({"unix_socket": ""}, "unix_socket is empty"),
    ],
)
def test_what_is_no_address_is_refused(health: Health, where: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        health.serve(**where)


def test_a_socket_that_can_not_be_made_is_named(health: Health, tmp_path: Path) -> None:
    file = tmp_path / "missing" / "health.sock"
    with pytest.raises(FileNotFoundError, match=f"unix_socket='{file}': No such file"):
        health.serve(unix_socket=file)


@pytest.mark.parametrize("stalled_after", [0, -1, float("inf")])
def test_a_stall_takes_a_while(health: Health, stalled_after: float) -> None:
    with pytest.raises(ValueError, match="stalled_after"):
        health.serve(port=0, stalled_after=stalled_after)
    assert "main_loop" not in health


def test_an_address_that_is_taken_is_told_where_it_is_asked_for(
    health: Health, server: SideServer
) -> None:
    with pytest.raises(OSError, match="in use"):
        health.serve(port=server.port)


def test_ipv6(health: Health) -> None:
    with health.serve(port=0, host="::1") as server:
        assert server.port is not None
        assert get(http.client.HTTPConnection("::1", server.port, timeout=PATIENCE)) == OKAY


def test_a_unix_socket(health: Health, tmp_path: Path) -> None:
    file = tmp_path / "health.sock"
    with health.serve(unix_socket=file) as server:
        assert server.port is None
        assert get(Unix(file)) == OKAY
        with pytest.raises(OSError, match="in use"):
            health.serve(unix_socket=file)
    assert not file.exists()

    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(file))
    with health.serve(unix_socket=str(file)):
        assert get(Unix(file)) == OKAY
        file.unlink()  # who closes has nothing to take away, then
    file.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        health.serve(unix_socket=file)
    assert file.read_text() == "precious"


def test_whose_socket_it_is_now_is_left_to_its_owner(health: Health, tmp_path: Path) -> None:
    file = tmp_path / "health.sock"
    with health.serve(unix_socket=file) as first:
        file.unlink()  # as one does who takes it for left behind
        with health.serve(unix_socket=file):
            first.close()
            assert get(Unix(file)) == OKAY
    assert not file.exists()


def test_the_next_one_may_have_the_socket_while_the_last_one_closes(
    health: Health, tmp_path: Path
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def authorize(_caller: Any) -> bool:
        asked.set()
        return not go_on.wait(PATIENCE)

    file = tmp_path / "health.sock"
    last = health.serve(unix_socket=file, authorize=authorize)
    asking = InThread(lambda: get(Unix(file)))
    assert asked.wait(PATIENCE)
    closing = InThread(last.close)
    until_sync(lambda: not file.exists())
    assert not closing.done
    with health.serve(unix_socket=file):
        go_on.set()
        closing.result()
        assert get(Unix(file)) == OKAY
    with contextlib.suppress(ConnectionError):
        asking.result()


# Its life


def test_one_that_has_broken_down_says_so_and_takes_no_more_in(
    health: Health, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def authorize(_caller: Any) -> bool:
        raise KeyboardInterrupt

    async def authorize_later(caller: Any) -> bool:
        return authorize(caller)

    file = tmp_path / "health.sock"
    on_socket = health.serve(unix_socket=file, authorize=authorize)
    on_port = health.serve(port=0, authorize=authorize_later)
    port = on_port.port
    for connection in (Unix(file), http.client.HTTPConnection("127.0.0.1", port, PATIENCE)):
        with pytest.raises((OSError, http.client.HTTPException)):
            get(connection)
    until_sync(lambda: caplog.text.count("the side server has ended") == 2)
    assert (on_socket.serving, on_port.serving, on_port.port) == (False, False, None)
    assert not file.exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port)).close()
    on_port.close()
    on_socket.close()


def test_a_main_loop_is_not_called_stalled_by_one_that_has_broken_down(health: Health) -> None:
    def authorize(_caller: Any) -> bool:
        raise KeyboardInterrupt

    server = health.serve(port=0, authorize=authorize, stalled_after=0.1)
    server.beat()
    with pytest.raises((OSError, http.client.HTTPException)):
        get(server)
    until_sync(lambda: health.run_sync("main_loop").status is Status.DEGRADED)


def test_it_stops_with_its_health(health: Health) -> None:
    async def main() -> SideServer:
        async with health:
            server = health.serve(port=0)
            port = server.port
            assert await asyncio.to_thread(get, server) == OKAY
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port)).close()
        return server

    server = asyncio.run(main())
    assert (server.serving, server.port) == (False, None)
    server.close()
    until_sync(lambda: not [t for t in threading.enumerate() if t.name == "healthmw-side"])
    with health.serve(port=0) as again:
        assert get(again) == OKAY


def test_to_stop_does_not_wait_for_clients(health: Health) -> None:
    never = threading.Event()
    health.add("stuck", lambda: never.wait(PATIENCE) and None, timeout=PATIENCE)
    with health.serve(port=0) as server, socket.create_connection(("127.0.0.1", server.port)) as it:
        asking = InThread(lambda: raw(server, b"GET / HTTP/1.1\r\n\r\n"))
        until_sync(lambda: health._runners["stuck"].under_way is not None)
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < PATIENCE / 2
        assert it.recv(1) == b""
    with contextlib.suppress(ConnectionError):
        assert asking.result() == b""
    never.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_leaves_the_port_to_its_parent_and_may_serve_another() -> None:
    out = run_program("""
import urllib.request
def get(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/live?verbose", timeout=20) as it:
        return it.read().decode()

health = Health()
health.add("database", ScriptedProbe(is_async=False))
server = health.serve(port=0, stalled_after=20)
server.beat()
assert "[+] main_loop" in get(server)
port = server.port
read, write = os.pipe()
pid = os.fork()
if not pid:
    assert not server.serving and server.port is None
    server.close()
    assert health.run_sync("main_loop").status is Status.DEGRADED
    other = health.serve(port=0, stalled_after=20)
    other.beat()
    assert other.port != port
    until_sync(lambda: "[+] main_loop" in get(other))
    os.write(write, b"x")
    signal.pause()
os.close(write)
assert os.read(read, 1) == b"x"
assert "[+] main_loop" in get(server)
server.close()
again = health.serve(port=port)  # the child holds no end of it
assert get(again).startswith("OKAY")
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
print("well")
""")
    assert out == "well\n"


def test_a_process_ends_while_it_serves() -> None:
    out = run_program("""
health = Health()
health.add("database", ScriptedProbe())
server = health.serve(port=0, stalled_after=5)
print("end")
""")
    assert out == "end\n"


# An app that hangs


@contextlib.contextmanager
def app_on(backend: str, main: Callable[[], Any]) -> Iterator[None]:
    """Run `main` as an app's main function, in a thread."""
    app = InThread(lambda: anyio.run(main, backend=backend))
    yield
    app.result()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("background", [False, True])
def test_a_loop_that_hangs_is_told_while_it_hangs(backend: str, background: bool) -> None:
    health = Health(deadline=1.0)
    # On the app's loop, as its own clients are: it can't come back while that hangs.
    asked_on: list[str] = []

    async def database() -> None:
        asked_on.append(threading.current_thread().name)
        await anyio.lowlevel.checkpoint()

    health.add("database", database, timeout=0.5, interval=3600 if background else None)
    wedge, release, over = threading.Event(), threading.Event(), threading.Event()
    servers: list[SideServer] = []

    async def main() -> None:
        async with health:
            servers.append(health.serve(port=0, stalled_after=0.3))
            assert threading.current_thread().name not in asked_on or background
            home.append(threading.current_thread().name)
            await until(wedge.is_set)
            release.wait(PATIENCE)  # as a call that blocks does
            await until(over.is_set)

    home: list[str] = []
    with app_on(backend, main):
        try:
            until_sync(lambda: home)
            until_sync(lambda: get(servers[0]) == OKAY)
            assert set(asked_on) == set(home)
            until_sync(lambda: health.last("main_loop").status is Status.OKAY)
            wedge.set()
            until_sync(lambda: get(servers[0], "/live")[0] == 503)
            assert get(servers[0], "/live") == (503, b"FAILED: main_loop (failed)")
            detail = health.last("main_loop").results["main_loop"].detail
            assert "the main loop has not moved for " in detail
            assert "wait (threading.py" in detail
            status, body = get(servers[0], "/ready")
            assert (status, b"main_loop (failed)" in body) == (503, True)
            release.set()
            until_sync(lambda: get(servers[0], "/live") == OKAY)
            until_sync(lambda: get(servers[0]) == OKAY)
            lag = health.last("main_loop").results["main_loop"].measurements["lag_seconds"]
            assert isinstance(lag, float)
        finally:
            wedge.set()
            release.set()
            over.set()


def test_a_pool_of_threads_that_is_used_up_is_told() -> None:
    health = Health(max_age=0)

    @health.probe("threads", timeout=0.3)
    async def threads() -> None:
        await anyio.to_thread.run_sync(int)

    release, over = threading.Event(), threading.Event()
    servers: list[SideServer] = []

    async def main() -> None:
        async with health, anyio.create_task_group() as tasks:
            servers.append(health.serve(port=0, stalled_after=10))
            for _ in range(100):
                tasks.start_soon(anyio.to_thread.run_sync, lambda: release.wait(PATIENCE))
            await until(over.is_set)

    with app_on("asyncio", main):
        try:
            until_sync(lambda: servers)
            until_sync(lambda: get(servers[0])[0] == 503)
            status, body = get(servers[0])
            assert status == 503
            assert body.startswith(b"FAILED: threads (")
            assert get(servers[0], "/live") == OKAY
            release.set()
            until_sync(lambda: get(servers[0]) == OKAY)
        finally:
            release.set()
            over.set()


def test_who_has_no_event_loop_calls_beat(health: Health, server: SideServer) -> None:
    with pytest.raises(ValueError, match="stalled_after was not given"):
        server.beat()
    with health.serve(port=0, stalled_after=0.3) as watched:
        result = health.run_sync("main_loop").results["main_loop"]
        assert (result.status, result.detail) == (
            Status.DEGRADED,
            "no event loop to watch yet, and no beat",
        )
        watched.beat()
        until_sync(lambda: health.run_sync("main_loop").status is Status.OKAY)
        until_sync(lambda: get(watched, "/live")[0] == 503)
        watched.beat()
        until_sync(lambda: get(watched, "/live") == OKAY)
        with pytest.raises(ValueError, match="main_loop"):
            health.serve(port=0, stalled_after=1)
    assert health.run_sync("main_loop", fresh=True).status is Status.DEGRADED
    with health.serve(port=0, stalled_after=20) as anew:
        anew.beat()
        assert health.run_sync("main_loop", fresh=True).status is Status.OKAY


def test_it_says_where_the_main_loop_is(health: Health) -> None:
    over = threading.Event()

    def detail() -> str:
        return health.run_sync("main_loop", fresh=True).results["main_loop"].detail

    with health.serve(port=0, stalled_after=0.1) as server:

        def consume() -> None:
            server.beat()
            while not over.is_set():
                time.sleep(0.01)

        consumer = InThread(consume)
        try:
            until_sync(lambda: "; it is in consume (test_side.py:" in detail())
        finally:
            over.set()
        consumer.result()
        until_sync(lambda: detail().endswith(" s"))  # it is nowhere any more


def test_a_loop_that_has_ended_moves_no_more(health: Health) -> None:
    async def main() -> SideServer:
        return health.serve(port=0, stalled_after=0.2)

    with asyncio.run(main()) as server:
        until_sync(lambda: get(server, "/live")[0] == 503)

        async def again() -> None:
            health.start()
            await until(lambda: health.last("main_loop").ok or get(server, "/live")[0] == 200)

        asyncio.run(again())


@pytest.mark.anyio
async def test_background_checks_move_to_the_loop_of_the_app(health: Health) -> None:
    ran_in: list[int] = []

    async def background() -> None:
        ran_in.append(threading.get_ident())
        await anyio.lowlevel.checkpoint()

    health.add("background", background, interval=0.01)
    # Where the app has not begun yet, whatever begins earlier has healthmw's own loop.
    InThread(health.start).result()
    await until(lambda: ran_in)
    assert ran_in[0] != threading.get_ident()
    async with health:
        await until(lambda: set(ran_in[-20:]) == {threading.get_ident()})  # and no more in between


# Many, and slow, clients


def test_many_at_once_share_one_run() -> None:
    health = Health(max_age=PATIENCE)  # for who is accepted, but has not asked when the run ends
    arrived, runs = threading.Event(), 0

    def slow() -> None:
        nonlocal runs
        runs += 1
        arrived.wait(PATIENCE)

    health.add("slow", slow, timeout=PATIENCE)
    health.deadline = PATIENCE
    with health.serve(port=0) as server, concurrent.futures.ThreadPoolExecutor(200) as pool:
        answers = [pool.submit(get, server) for _ in range(200)]
        until_sync(lambda: len(server._open) == 200 and not server._idle)
        arrived.set()
        assert {one.result(PATIENCE) for one in answers} == {OKAY}
    assert runs == 1


def test_clients_that_dawdle_keep_nobody_out(server: SideServer) -> None:
    with contextlib.ExitStack() as stack:
        dawdlers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
            for _ in range(400)
        ]
        for one in dawdlers:
            with contextlib.suppress(OSError):
                one.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(20):
            assert get(server) == OKAY
        assert len(server._open) <= 257
        # Those that were not shown out for others are told at last.
        told = 0
        for one in dawdlers:
            with contextlib.suppress(ConnectionError):
                told += one.recv(12) == b"HTTP/1.1 408"
        assert told > 0
    assert get(server) == OKAY


def test_a_client_that_does_not_take_its_answer_is_shown_out(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healthmw.side._SEND_SECONDS", 0.2)
    with health.serve(port=0) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            until_sync(lambda: server._open)
            until_sync(lambda: not server._open)
        assert get(server) == OKAY


def test_when_all_wait_for_their_answer_one_more_is_turned_away(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healthmw.side._CONNECTIONS", 2)
    never = threading.Event()
    health.add("stuck", lambda: never.wait(PATIENCE) and None, timeout=PATIENCE)
    health.deadline = PATIENCE
    with health.serve(port=0) as server:
        waiting = [InThread(lambda: get(server)) for _ in range(2)]
        until_sync(lambda: len(server._open) == 2 and not server._idle)
        with pytest.raises(OSError, match=r"reset|without response"):
            get(server)
        never.set()
        assert [one.result()[0] for one in waiting] == [200, 200]


def test_a_machine_that_was_asleep_makes_nobody_look_stalled() -> None:
    watch = Watch(lambda: None)
    watch.begin(0.1)
    watch.beat()
    time.sleep(0.3)  # meanwhile not a tick came
    watch.tick()
    assert watch() == {}


def test_where_it_can_not_begin_to_serve_it_says_so(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none_left(*_args: object, **_options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(asyncio, "start_server", none_left)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        health.serve(port=0)
