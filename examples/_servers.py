"""Servers to try things on: started on a free port, asked, stopped with all that they started."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_GRACE = 10.0  # seconds that a server has to stop
_REQUEST_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for a request. Status 0: nothing did, and the body says why."""

    status: int
    body: str
    health: str | None = None


def ask(url: str, *, data: object = None, headers: Mapping[str, str] | None = None) -> Answer:
    """GET `url`, or POST `data` to it as JSON."""
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    body = None if data is None else json.dumps(data)
    json_headers = {} if data is None else {"Content-Type": "application/json"}
    connection = http.client.HTTPConnection(parts.netloc, timeout=_REQUEST_TIMEOUT)
    try:
        method = "GET" if data is None else "POST"
        connection.request(method, path, body, {**json_headers, **(headers or {})})
        response = connection.getresponse()
        return Answer(
            status=response.status,
            body=response.read().decode(),
            health=response.headers["Health-Status"],
        )
    except (OSError, http.client.HTTPException) as exc:
        return Answer(status=0, body=f"no answer: {type(exc).__name__}: {exc}")
    finally:
        connection.close()


def environment(**variables: str) -> dict[str, str]:
    """Return an environment in which the commands installed beside this Python come first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, **variables}


def procfile(example: Path, process: str) -> str:
    """Return the command of one process of an example."""
    lines = (example / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)[process]


class Server:
    """A shell command that serves HTTP on $PORT, in a process group of its own.

    Use as a context manager, to end it and all that it started. What it writes goes to `log`.
    """

    def __init__(self, command: str, *, cwd: Path, log: Path, env: Mapping[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.command = command
        self._cwd = cwd
        self._env = {**env, "PORT": str(self.port)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the first process, which leads the group; 0 when it isn't running."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, again if it was stopped, on the same port."""
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                ["sh", "-c", f"exec {self.command}"],
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def wait_until_up(self, timeout: float = 30.0) -> None:
        """Return when its port is open. Raises `RuntimeError` with its log when it never is."""
        until = time.monotonic() + timeout
        while time.monotonic() < until and self._process is not None:
            if self._process.poll() is not None:
                break
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.command!r} does not listen; its log:\n{self.log.read_text()}")

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def stop(self) -> int | None:
        """End it, by force if it takes too long; return its exit status, if it was running."""
        if self._process is None:
            return None
        process = self._process
        if process.poll() is None:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)  # a process that is paused hears nothing else
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
        self.signal(signal.SIGKILL)  # whatever is left of the group
        self._process = None
        return process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
