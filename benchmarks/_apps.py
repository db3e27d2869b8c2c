"""The candidates as servers see them, and the servers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks._peers import label, python_of
from tests.servers.boot import Server

if TYPE_CHECKING:
    from pathlib import Path

PATH = "/health_check"
ELSEWHERE = "/nothing/at/all"
"""A path that no candidate has a check behind."""

UVICORN = "uvicorn --port 0 --loop asyncio --http httptools --no-access-log"
SYNC = "gunicorn --bind 127.0.0.1:0 --worker-class sync --timeout 300"
GTHREAD = "gunicorn --bind 127.0.0.1:0 --worker-class gthread --threads 8 --timeout 300"
MANY_THREADS = GTHREAD.replace("--threads 8", "--threads 64")


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One candidate. `peer` is empty for what needs no environment but our own."""

    name: str
    target: str
    peer: str = ""
    path: str = PATH
    kinds: tuple[str, ...] = ("async", "sync")
    cached: bool = False
    """Whether it serves results from memory when told nothing."""
    database: bool = False

    @property
    def interface(self) -> str:
        return "wsgi" if self.target.endswith("wsgi") else "asgi"

    @property
    def can_be_had(self) -> bool:
        return python_of(self.peer) is not None


def _peer(name: str, module: str, about: str = "", **more: Any) -> App:
    shown = f"{label(name)}, {about}" if about else label(name)
    return App(name=shown, target=f"benchmarks.peers.{module}", peer=name, **more)


BARE = {
    "asgi": App(name='an app that answers b"OKAY"', target="benchmarks.peers.bare:asgi"),
    "wsgi": App(name='an app that answers b"OKAY"', target="benchmarks.peers.bare:wsgi"),
}
_ALIKE = "the same with the headers of healthmw"
ALIKE = {
    "asgi": App(name=_ALIKE, target="benchmarks.peers.bare:alike_asgi"),
    "wsgi": App(name=_ALIKE, target="benchmarks.peers.bare:alike_wsgi"),
}
BY_HAND = {
    "asgi": App(name="by hand", target="benchmarks.peers.bare:shared_asgi"),
    "wsgi": App(name="by hand", target="benchmarks.peers.bare:shared_wsgi"),
}
OURS = {
    "asgi": App(name="healthmw", target="benchmarks.peers.ours:asgi", cached=True, database=True),
    "wsgi": App(name="healthmw", target="benchmarks.peers.ours:wsgi", cached=True, database=True),
}
_HEARTBEAT = "/__heartbeat__"
_ASYNC, _SYNC = ("async",), ("sync",)
PEERS = {
    "asgi": [
        _peer("light-health", "light_health:asgi", path="/health", kinds=_ASYNC),
        _peer(
            "fastapi-watch", "fastapi_watch:asgi", path="/health/ready", kinds=_ASYNC, cached=True
        ),
        _peer(
            "fast-healthchecks", "fast_healthchecks:asgi", path="/health/readiness", database=True
        ),
        _peer("fastapi-healthchecks", "fastapi_healthchecks:asgi", kinds=_ASYNC, database=True),
        _peer("dockerflow", "dockerflow_fastapi:asgi", "FastAPI", path=_HEARTBEAT),
        _peer("django-health-check", "django_health_check:asgi", database=True),
    ],
    "wsgi": [
        _peer(
            "dockerflow",
            "dockerflow_django:wsgi",
            "Django",
            path=_HEARTBEAT,
            kinds=_SYNC,
            database=True,
        ),
        _peer("dockerflow", "dockerflow_flask:wsgi", "Flask", path=_HEARTBEAT, kinds=_SYNC),
        _peer("py-healthcheck", "py_healthcheck:wsgi", kinds=_SYNC, cached=True),
        _peer("django-watchman", "django_watchman:wsgi", kinds=_SYNC, database=True),
        _peer("django-health-check", "django_health_check:wsgi", database=True),
    ],
}


def peers(interface: str, kind: str) -> list[App]:
    """Return the peers that are to be had and have checks of this kind."""
    return [app for app in PEERS[interface] if kind in app.kinds and app.can_be_had]


def serve(app: App, command: str, folder: Path, **environ: str) -> Server:
    """Return a server, which is to be used as a context manager, of `app` with its checks."""
    words = [
        python_of(app.peer) or sys.executable,
        "-W",
        "ignore",
        "-m",
        *command.split(),
        app.target,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    # The environment that a peer is in has nothing of ours but the folder.
    return Server(words, folder, up=ELSEWHERE, **environ)
