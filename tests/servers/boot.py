"""Real web servers: each a process of its own on a port that the system picks, ended by its pid."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.transports import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds until something that ought to happen counts as not happening

_PORT = re.compile(r"(?:Listening at: |[Rr]unning on )http://127\.0\.0\.1:(\d+)")
_WORKER = re.compile(r"(?:Booting worker with pid: |Started server process \[)(\d+)")


@dataclass(frozen=True)
class Kind:
    """A web server and how it is told to run an app. `interface` is `asgi` or `wsgi`."""

    interface: str
    options: str

    def command(self, app: str, workers: int = 1, *extra: str) -> list[str]:
        if self.interface == "wsgi":
            program = ["gunicorn", "--bind", "127.0.0.1:0", "--graceful-timeout", "20"]
        else:
            program = ["uvicorn", "--port", "0", "--timeout-graceful-shutdown", "20"]
        workers_too = ["--workers", str(workers)] if workers > 1 else []
        return [sys.executable, "-m", *program, *self.options.split(), *workers_too, *extra, app]


KINDS = {
    "gunicorn sync": Kind("wsgi", "--worker-class sync"),
    "gunicorn gthread": Kind("wsgi", "--worker-class gthread --threads 8"),
    "gunicorn preload": Kind("wsgi", "--preload"),
    "uvicorn asyncio": Kind("asgi", "--loop asyncio"),
    "uvicorn uvloop": Kind("asgi", "--loop uvloop"),
}


class Server:
    """A web server. Use as a context manager: it has answered when the block begins."""

    def __init__(
        self, command: list[str], folder: Path, *, up: str = "/hello", **environ: str
    ) -> None:
        self._command = command
        self._folder = folder
        self._up = up
        # gunicorn keeps a socket in the user's home; ours are not to meet there.
        self._environ = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT), **environ}
        self.log = folder / "server.log"
        self.port = 0

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            eventually(self._is_up, self.tail)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self.kill()

    def _is_up(self) -> bool:
        assert self._process.poll() is None, f"the server ended: {self.tail()}"
        found = _PORT.search(self.tail())
        if found is None:
            return False
        self.port = int(found[1])
        try:
            return self.get(self._up).status < 500
        except OSError:
            return False

    def tail(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def workers(self) -> set[int]:
        """The pids of the processes that serve."""
        return {int(pid) for pid in _WORKER.findall(self.tail())}

    def get(self, path: str = "/health_check", method: str = "GET") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return Answer(
                status=response.status,
                headers=tuple((k.lower(), v) for k, v in response.getheaders()),
                body=response.read(),
            )
        finally:
            connection.close()

    def end(self, number: signal.Signals) -> float:
        """Send a signal, as a deploy does; return after how many seconds every process was gone."""
        began = time.monotonic()
        workers = self.workers
        self._process.send_signal(number)
        self._process.wait(PATIENCE)
        eventually(lambda: not any(map(_alive, workers)), self.tail)
        return time.monotonic() - began

    @property
    def exit_status(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        """End whatever is left of the process and its children: they are a group of their own."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait(PATIENCE)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def eventually(holds: Callable[[], bool], explain: Callable[[], object] = str) -> None:
    """Wait until `holds()`; after a long time, fail and explain."""
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            raise AssertionError(f"it did not happen within {PATIENCE:g} s: {explain()}")
        time.sleep(0.02)


def app_of(kind: Kind) -> str:
    return f"tests.servers.{kind.interface}_app:app"


def scenario(name: str, folder: Path) -> Mapping[str, str]:
    """Return the environment that makes the app register the checks of this name."""
    return {
        "SCENARIO": name,
        "JOURNAL": str(folder / "journal"),
        "DEPENDENCY": str(folder / "dependency"),
    }
