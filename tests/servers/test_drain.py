"""SIGTERM under real servers: traffic is sent elsewhere first, and nothing fails meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import side_by_side
from tests.servers.boot import PATIENCE, Server, eventually, scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

DELAY = 3.0
LONG = 600.0
GRACE = 15.0  # seconds; gunicorn is told to allow 20

GUNICORN = "gunicorn --bind 127.0.0.1:{port} --graceful-timeout 20"
ASGI = {
    "uvicorn asyncio": "uvicorn --port {port} --loop asyncio",
    "uvicorn uvloop": "uvicorn --port {port} --loop uvloop",
    "uvicorn without lifespan": "uvicorn --port {port} --lifespan off",
    "uvicorn workers": "uvicorn --port {port} --workers 2",
    "hypercorn asyncio": "hypercorn --workers 0 --bind 127.0.0.1:{port}",
    "hypercorn uvloop": "hypercorn --workers 0 --worker-class uvloop --bind 127.0.0.1:{port}",
    "granian asyncio": "granian --interface asgi --loop asyncio --port {port}",
    "granian uvloop": "granian --interface asgi --loop uvloop --port {port}",
    "gunicorn uvicorn": f"{GUNICORN} --worker-class uvicorn.workers.UvicornWorker",
    "gunicorn asgi": f"{GUNICORN} --worker-class asgi --asgi-loop asyncio",
}
WSGI = {
    "gunicorn sync": f"{GUNICORN} --worker-class sync",
    "gunicorn gthread": f"{GUNICORN} --worker-class gthread --threads 8",
    "gunicorn preload": f"{GUNICORN} --worker-class sync --preload",
    "gunicorn gevent": f"{GUNICORN} --worker-class gevent",
    "gunicorn preload gthread": f"{GUNICORN} -k gthread --threads 8 --preload -c hooks.py",
}
SERVERS = {**ASGI, **WSGI}
HOOKS = "from healthmw.gunicorn import post_worker_init\n"

every_server = side_by_side.each(SERVERS)
some_servers = side_by_side.each(["uvicorn asyncio", "hypercorn uvloop", "granian asyncio", *WSGI])
AT_ONCE = 3  # for most of the time they wait


class Running(Server):
    """A server on a port that is picked for it: not all of them tell their own."""

    def __init__(self, name: str, port: int, folder: Path, **environ: str) -> None:
        words = SERVERS[name].format(port=port).split()
        app = f"tests.servers.deploy_{'asgi' if name in ASGI else 'wsgi'}:app"
        folder.joinpath("hooks.py").write_text(HOOKS)
        super().__init__([sys.executable, "-m", *words, app], folder, **environ)
        self.port = port

    def _is_up(self) -> bool:
        assert self._process.poll() is None, f"the server ended: {self.tail()}"
        try:
            # The endpoint, too: some can only arm themselves then.
            return self.get("/hello").status == 200 and self.get().status > 0
        except OSError:
            return False

    @property
    def pid(self) -> int:
        return self._process.pid

    def serving(self) -> int:
        """Return the pid of a process that answers."""
        seen: dict[str, Any] = json.loads(self.get("/hello").body)
        return int(seen["pid"])

    def is_draining(self) -> bool:
        answer = self.get()
        return (answer.status, answer.body) == (503, b"FAILED: draining")

    def has_ended(self) -> bool:
        return self.exit_status is not None


@pytest.fixture(scope="module")
def begun(request: pytest.FixtureRequest) -> Iterator[side_by_side.Begun]:
    """Have all servers begun, a few at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield side_by_side.begin(request, pool)
        pool.shutdown(cancel_futures=True)


@contextmanager
def run(name: str, delay: float | None, checks: str = "ready") -> Iterator[Running]:
    """Run the server of that name, on a port that is free."""
    with TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        free.close()
        environ = dict(scenario(checks, Path(folder)))
        if delay is not None:
            environ["DRAIN_DELAY"] = str(delay)
        with Running(name, port, Path(folder), **environ) as running:
            yield running


class Load:
    """A few clients that ask without a pause. Each request that fails is kept."""

    def __init__(self, server: Server, clients: int = 3) -> None:
        self.failed: list[str] = []
        self.done = 0
        self._server = server
        self._over = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(clients)]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        for client in self._clients:
            client.start()
        try:
            yield
        finally:
            self._over.set()
            for client in self._clients:
                client.join(PATIENCE)

    def _ask(self) -> None:
        while not self._over.wait(0.005):
            try:
                answer = self._server.get("/hello")
            except OSError as exc:
                self.failed.append(repr(exc))
            else:
                self.done += 1
                if answer.status != 200:
                    self.failed.append(str(answer))


@every_server
def test_no_request_fails_while_traffic_is_sent_elsewhere(name: str) -> None:
    with run(name, DELAY) as server:
        assert server.get().body == b"OKAY"
        load = Load(server)
        with load():
            eventually(lambda: load.done > 20, server.tail)
            began = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            eventually(server.is_draining, server.tail)
            told_after = time.monotonic() - began
            before = load.done
            while time.monotonic() < began + DELAY / 2:
                assert server.is_draining(), "there is no way back"
                assert server.get("/health_check/live").body == b"OKAY"
        assert load.failed == [], server.tail()
        assert load.done > before, "the app went on serving"
        assert told_after < DELAY / 2

        eventually(server.has_ended, server.tail)
        lasted = time.monotonic() - began
        assert DELAY <= lasted < DELAY + GRACE
        assert server.exit_status in {0, -signal.SIGTERM}, server.tail()
        assert "SIGKILL" not in server.tail()


@side_by_side.each(name for name in SERVERS if name != "uvicorn workers")
def test_a_second_term_cuts_it_short(name: str) -> None:
    with run(name, LONG) as server:
        serving = server.serving()
        os.kill(server.pid, signal.SIGTERM)
        eventually(server.is_draining, server.tail)
        began = time.monotonic()

        def insist() -> bool:
            """Tell the process that serves: no master passes a second one on."""
            try:
                os.kill(serving, signal.SIGTERM)
            except ProcessLookupError:
                return server.has_ended()
            time.sleep(0.2)
            return server.has_ended()

        eventually(insist, server.tail)
        assert time.monotonic() - began < GRACE


@some_servers
def test_one_that_comes_by_two_ways_at_once_is_one(name: str) -> None:
    """Heroku and systemd tell all processes, and a master then tells its workers."""
    with run(name, DELAY) as server:
        serving = server.serving()
        began = time.monotonic()
        os.kill(serving, signal.SIGTERM)
        os.kill(server.pid, signal.SIGTERM)
        eventually(server.has_ended, server.tail)
        assert time.monotonic() - began >= DELAY


@some_servers
def test_a_stuck_probe_holds_nothing_up(name: str) -> None:
    with run(name, 1.0, "hung") as server:
        assert server.get().status == 503
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        eventually(server.is_draining, server.tail)
        eventually(server.has_ended, server.tail)
        assert 1.0 <= time.monotonic() - began < 1.0 + GRACE
        assert server.exit_status in {0, -signal.SIGTERM}, server.tail()


@some_servers
def test_without_the_option_the_server_stops_as_ever(name: str) -> None:
    with run(name, None) as server:
        os.kill(server.pid, signal.SIGTERM)
        eventually(server.has_ended, server.tail)
        assert "draining" not in server.tail()
