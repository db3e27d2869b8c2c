"""The app of the fault matrix, for ASGI and for WSGI: four `Health`s, and ways to hurt the process.

Each `Health` is mounted at a path of its own and has the same checks: critical or not, run on
request or in the background. `/hurt?HOW` and `/heal` are routes of the app, `/held` tells what the
process holds, and `/hello` is what it is for. There is a bare one too, without a `Health`: the same
harm done to it shows what of the harm is the app's own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import mmap
import os
import resource
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from healthmw import Health
from healthmw import asgi as healthmw_asgi
from healthmw import wsgi as healthmw_wsgi
from healthmw.probes import DirectoryProbe, RedisProbe, TCPProbe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAME = "dependency.test"
LIMIT = 4.0
"""Seconds that a probe has: so many that no slow machine makes a timeout of a well one."""
DEADLINE = 10.0
"""Seconds within which an answer leaves."""
HURTS_FOR = 2.0
"""Seconds for which the event loop is blocked."""
GREED = 1 << 28

_POOLS = ("asyncio_", "AnyIO worker", "ThreadPoolExecutor")
"""What threads of the app's and the server's own pools are called."""

_KINDS = {
    "critical-request": {"critical": True},
    "critical-background": {"critical": True, "interval": 0.2, "stale_after": 90.0},
    "minor-request": {"critical": False},
    "minor-background": {"critical": False, "interval": 0.2, "stale_after": 90.0},
}


def hungry() -> None:
    """Need some memory, for a moment and without writing to it."""
    mmap.mmap(-1, GREED).close()


def healths() -> dict[str, Health]:
    """Return a `Health` for each kind of check."""
    found = {}
    host, _, port = os.environ["NAMED"].rpartition(":")
    for kind, policy in _KINDS.items():
        health = found[kind] = Health(max_age=0.2, deadline=DEADLINE, release="")
        probes: dict[str, Callable[[], Any]] = {
            "redis": RedisProbe(os.environ["REDIS"], timeout=LIMIT),
            "named": TCPProbe(host, int(port), timeout=LIMIT),
            "memory": hungry,
        }
        if "FOLDER" in os.environ:
            folder = Path(os.environ["FOLDER"], kind)
            folder.mkdir(exist_ok=True)
            probes["folder"] = DirectoryProbe(folder)
        if "HOLE" in os.environ:
            probes["hole"] = TCPProbe(os.environ["HOLE"], timeout=LIMIT)
        for name, probe in probes.items():
            health.add(name, probe, timeout=2 * LIMIT, **policy)  # type: ignore[arg-type]  # a mixed bag
    return found


class Hurt:
    """What is wrong with this process at the moment."""

    def __init__(self) -> None:
        self._resolve: Callable[..., Any] = socket.getaddrinfo
        self._time = time.time
        self._files: list[int] = []
        self._over = threading.Event()
        self._was: dict[int, tuple[int, int]] = {}
        self._names = True
        self.loop: asyncio.AbstractEventLoop | None = None
        socket.getaddrinfo = self._look_up

    def _look_up(self, host: Any, *rest: Any, **options: Any) -> Any:
        if host in {NAME, NAME.encode()}:
            if not self._names:
                raise socket.gaierror(socket.EAI_AGAIN, "the resolver does not answer")
            host = "127.0.0.1"
        return self._resolve(host, *rest, **options)

    def by(self, how: str) -> int:
        """Do it; return how much harm was still to be done."""
        return getattr(self, how)() or 0

    def names(self) -> None:
        self._names = False

    def clock(self) -> None:
        usual = self._time
        time.time = lambda: usual() - 86400.0

    def files(self) -> int:
        """Take all that are free; return how many that were."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self._limit(resource.RLIMIT_NOFILE, (min(256, most), most))
        before = len(self._files)
        try:
            while True:
                self._files.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return len(self._files) - before

    def memory(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        # Too little for the probe, and enough for a few threads.
        self._limit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GREED // 2, most))

    def threads(self) -> None:
        """Have all threads of the app's usual pools wait."""
        self._over = over = threading.Event()
        if self.loop is None:
            return
        for _ in range(64):
            self.loop.run_in_executor(None, over.wait, 120)

        async def one() -> None:
            await anyio.to_thread.run_sync(over.wait, 120)

        self._waiting = [self.loop.create_task(one()) for _ in range(64)]

    def block(self) -> None:
        time.sleep(HURTS_FOR)

    def wait(self) -> None:
        """Hold the thread of this request."""
        self._over.wait(120)

    def heal(self) -> None:
        self._names = True
        time.time = self._time
        while self._files:
            os.close(self._files.pop())
        for which, limits in self._was.items():
            resource.setrlimit(which, limits)
        self._was.clear()
        self._over.set()

    def _limit(self, which: int, limits: tuple[int, int]) -> None:
        self._was.setdefault(which, resource.getrlimit(which))
        resource.setrlimit(which, limits)


HURT = Hurt()


def held() -> dict[str, int]:
    gc.collect()
    # The app's own pools keep theirs.
    names = [thread.name for thread in threading.enumerate()]
    theirs = [name for name in names if name.startswith(_POOLS)]
    probing = [name for name in names if name == "healthmw-probe"]
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - counted, not opened
    return {
        "threads": threads - len(theirs) - len(probing),
        # These come and go: one for each check at most that runs in a thread.
        "probing": max(len(probing), len(_KINDS) * 3),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "tasks": len(asyncio.all_tasks(HURT.loop)) if HURT.loop else 0,
        "memory": int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
        "pid": os.getpid(),
    }


def answer(path: str, query: str) -> tuple[int, bytes]:
    if path == "/hello":
        return 200, b"hello"
    if path == "/held":
        return 200, json.dumps(held()).encode()
    if path == "/hurt":
        return 200, str(HURT.by(query)).encode()
    if path == "/heal":
        HURT.heal()
        return 200, b""
    return 404, b""


async def _asgi_hello(scope: Any, receive: Any, send: Any) -> None:
    HURT.loop = asyncio.get_running_loop()
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    status, body = answer(scope["path"], scope["query_string"].decode())
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _wsgi_hello(environ: Any, start_response: Any) -> Iterable[bytes]:
    status, body = answer(environ["PATH_INFO"], environ["QUERY_STRING"])
    start_response(f"{status} x", [("Content-Length", str(len(body)))])
    return [body]


logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


def bare_asgi() -> Any:
    """Make the ASGI app that has no `Health`."""
    return _asgi_hello


def bare_wsgi() -> Any:
    """Make the WSGI app that has no `Health`."""
    return _wsgi_hello


def asgi() -> Any:
    """Make the ASGI app."""
    app: Any = _asgi_hello
    for kind, health in healths().items():
        app = healthmw_asgi.HealthMiddleware(app, health, path=f"/{kind}")
    return app


def wsgi() -> Any:
    """Make the WSGI app."""
    app: Any = _wsgi_hello
    for kind, health in healths().items():
        app = healthmw_wsgi.HealthMiddleware(app, health, path=f"/{kind}")
    return app
