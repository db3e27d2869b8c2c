"""What a verdict costs that is served from memory, beside an app that knows nothing but b"OKAY".

In process, where every nanosecond shows, and over uvicorn and gunicorn, as a caller sees it: in
short bursts that take turns, so that a busy machine is unfair to none.

    python -m benchmarks.endpoint [--json FILE]
"""

from __future__ import annotations

import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._in_process import serve_asgi, serve_wsgi
from benchmarks._measure import CONTROL, Results, nanoseconds, take_turns
from healthmw import Health, asgi, wsgi
from tests.servers.boot import Server

if TYPE_CHECKING:
    from collections.abc import Iterable

TIMES = 2_000
CONNECTIONS, BURST = 8, 10
BARE, ALIKE, OURS = 'an app that answers b"OKAY"', "with the same headers as ours", "healthmw"
PATH = "/health_check"
REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

FEW = [("Content-Type", "text/plain"), ("Content-Length", "4")]


def okay_asgi(headers: list[tuple[str, str]]) -> Any:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": b"OKAY"})

    return app


def okay_wsgi(headers: list[tuple[str, str]]) -> Any:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", list(headers))
        return [b"OKAY"]

    return app


def well() -> None:
    """Pass."""


# Nothing in here is slow, so that all that is measured is the answer from memory.
health = Health(max_age=3600)
health.add("database", well)
bare_asgi, bare_wsgi = okay_asgi(FEW), okay_wsgi(FEW)
ours_asgi = asgi.HealthMiddleware(bare_asgi, health)
ours_wsgi = wsgi.HealthMiddleware(bare_wsgi, health)


def our_headers() -> list[tuple[str, str]]:
    """Return the headers of an answer of healthmw's."""
    seen: list[tuple[str, str]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        seen.extend(headers)

    ours_wsgi({"REQUEST_METHOD": "GET", "PATH_INFO": PATH, "QUERY_STRING": ""}, start_response)
    return seen


def __getattr__(name: str) -> Any:
    # Made when a server asks for it: healthmw has to have answered once.
    if name in {"alike_asgi", "alike_wsgi"}:
        return (okay_asgi if name == "alike_asgi" else okay_wsgi)(our_headers())
    raise AttributeError(name)


def in_process(results: Results) -> None:
    health.run_sync()
    interfaces: dict[str, tuple[Any, dict[str, Any]]] = {
        "ASGI": (serve_asgi, {BARE: bare_asgi, OURS: ours_asgi}),
        "WSGI": (serve_wsgi, {BARE: bare_wsgi, OURS: ours_wsgi}),
    }
    for interface, (serve, apps) in interfaces.items():
        candidates = {name: nanoseconds(serve(app, PATH), TIMES) for name, app in apps.items()}
        samples = take_turns(candidates, rounds=results.rounds(301))
        rows = [
            {
                interface: name,
                "ns an answer": samples.median(name),
                "ns added": None if name == BARE else samples.added(name, BARE),
            }
            for name in (BARE, CONTROL, OURS)
        ]
        results.table(f"{interface}: an answer from memory, in process", rows)


# Over servers

COMMANDS = {
    "uvicorn, asyncio": "uvicorn --port 0 --loop asyncio --http httptools --no-access-log",
    "uvicorn, uvloop": "uvicorn --port 0 --loop uvloop --http httptools --no-access-log",
    "gunicorn, sync": "gunicorn --bind 127.0.0.1:0 --worker-class sync",
    "gunicorn, gthread": "gunicorn --bind 127.0.0.1:0 --worker-class gthread --threads 4",
}


class Caller:
    """Asks one server in short bursts, on connections that are kept where it keeps them."""

    def __init__(self, server: Server) -> None:
        self._address = ("127.0.0.1", server.port)
        self._workers = server.workers
        self._connections: list[socket.socket | None] = [None] * CONNECTIONS
        self.micros: list[float] = []
        """What each burst took of the server's processor time, in µs a request."""

    def __call__(self) -> float:
        """Return requests a second of one burst."""
        self._ask_all()  # whoever had the processor before had its caches, too
        cpu, began = self._cpu_nanoseconds(), time.perf_counter()
        for _ in range(BURST):
            self._ask_all()
        took, requests = time.perf_counter() - began, BURST * CONNECTIONS
        self.micros.append((self._cpu_nanoseconds() - cpu) / requests / 1000)
        return requests / took

    def _ask_all(self) -> None:
        connections = [known or self._connect() for known in self._connections]
        for connection in connections:
            connection.sendall(REQUEST)
        self._connections = [self._answered(connection) for connection in connections]

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    @staticmethod
    def _answered(connection: socket.socket) -> socket.socket | None:
        """Read one answer; return the connection if it may be used again."""
        answer = b""
        while not answer.endswith(b"\r\n\r\nOKAY"):
            received = connection.recv(65536)
            if not received:
                raise RuntimeError(f"the server said {answer!r} and hung up")
            answer += received
        if b"\r\nconnection: close" not in answer.lower():
            return connection
        connection.close()
        return None

    def _cpu_nanoseconds(self) -> int:
        """Return how long the server's threads have run; 0 where the system does not tell."""
        files = [f for pid in self._workers for f in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(file.read_text().split()[0]) for file in files)

    def close(self) -> None:
        for connection in filter(None, self._connections):
            connection.close()


def over_servers(results: Results) -> None:
    for server, command in COMMANDS.items():
        interface = "asgi" if "uvicorn" in server else "wsgi"
        with ExitStack() as stack:
            callers: dict[str, Caller] = {}
            for name, app in ((BARE, "bare"), (ALIKE, "alike"), (OURS, "ours")):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                words = [sys.executable, "-m", *command.split()]
                target = f"benchmarks.endpoint:{app}_{interface}"
                running = stack.enter_context(Server([*words, target], folder, up=PATH))
                callers[name] = stack.enter_context(closing(Caller(running)))
            samples = take_turns(callers, rounds=results.rounds(301))
        rows = []
        for name in (BARE, CONTROL, ALIKE, OURS):
            micros = None if name == CONTROL else statistics.median(callers[name].micros)
            rows.append(
                {
                    server: name,
                    "requests a second": samples.median(name),
                    "beside the bare app": samples.ratio(name, BARE),
                    "processor, µs a request": micros,
                }
            )
        results.table(f"{server}: an answer from memory", rows)


def main() -> None:
    results = Results("Measure what a verdict from memory costs.")
    in_process(results)
    over_servers(results)
    results.finish()


if __name__ == "__main__":
    main()
