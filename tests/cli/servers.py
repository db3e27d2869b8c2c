"""Small real web servers for the command line's tests, and what is needed to run and judge them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from healthmw.cli import main

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pytest

PLENTY = "45"
"""Seconds for what takes a fraction of one on an idle machine."""

# What every script may use: it listens on $PORT, and can say things byte by byte.
_PRELUDE = """\
import os, signal, socket, sys, threading, time
from pathlib import Path
here = Path(__file__).parent

def answer(body=b"OKAY", status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: text/plain"]
    return "\\r\\n".join([*lines, *headers, "", ""]).encode() + body

def listen():
    return socket.create_server((os.environ["HOST"], int(os.environ["PORT"])))

def serve(reply=lambda request: answer(), listener=None):
    listener = listener or listen()
    while True:
        client, _ = listener.accept()
        with client:
            request = b""
            while b"\\r\\n\\r\\n" not in request:
                if not (more := client.recv(65536)):
                    break
                request += more
            else:
                said = reply(request)
                try:
                    for part in [said] if isinstance(said, bytes) else said:
                        client.sendall(part)
                except OSError:
                    pass  # the client had enough

def mortal(reply, answers=2):
    # Answer so often, and then end: so nobody has to wait for a time limit.
    def count(request, left=[answers]):
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        return reply(request)
    return count

def drip(data, seconds):
    for at in range(len(data)):
        time.sleep(seconds)
        yield data[at : at + 1]

def daemonise(run):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            run()
        os._exit(0)
    os.wait()

"""


OKAY = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nOKAY"


def answer(body: bytes = b"OKAY", status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: text/plain"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


@contextlib.contextmanager
def answering(
    reply: Callable[[bytes], bytes | Iterable[bytes]] | bytes,
    *,
    unix_socket: Path | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """Answer each request as `reply` says, from a thread; yields `host:port`."""
    if unix_socket is None:
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(unix_socket))
        listener.listen()
    listener.settimeout(0.02)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):  # nobody came, or the client had enough
                client, _ = listener.accept()
                with client:
                    client.settimeout(10)
                    _converse(tls.wrap_socket(client, server_side=True) if tls else client, reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield "unix" if unix_socket else f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        thread.join()
        listener.close()


def _converse(
    client: socket.socket, reply: Callable[[bytes], bytes | Iterable[bytes]] | bytes
) -> None:
    with client:
        request = b""
        while b"\r\n\r\n" not in request:
            more = client.recv(65536)
            if not more:
                return
            request += more
        said = reply(request) if callable(reply) else reply
        for part in [said] if isinstance(said, bytes) else said:
            client.sendall(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run of the command line came to."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(slots=True, kw_only=True)
class Bench:
    """Writes servers into a folder of the test's own, and runs the command line on them."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    _scripts: int = field(default=0)

    def script(self, source: str) -> list[str]:
        """Return the command that runs `source` as a server."""
        self._scripts += 1
        file = self.folder / f"server{self._scripts}.py"
        file.write_text(_PRELUDE + textwrap.dedent(source))
        return [sys.executable, str(file)]

    def run(self, *words: str) -> Run:
        """Run the command line in this process."""
        self.capsys.readouterr()
        start = time.monotonic()
        code = main(words)
        seconds = time.monotonic() - start
        captured = self.capsys.readouterr()
        return Run(code=code, out=captured.out, err=captured.err, seconds=seconds)

    def smoke(self, source: str, *options: str, timeout: str = PLENTY) -> Run:
        """Smoke-test the server `source`."""
        command = self.script(source)
        return self.run("smoke", "--timeout", timeout, *options, "--", *command)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start the command line as a process of its own."""
        # Unbuffered output hides what becomes of a buffer at exit.
        env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        return subprocess.Popen(
            [sys.executable, "-m", "healthmw", *words],
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            text=True,
            env=env | options.pop("env", {}),
            **options,
        )

    def processes(self) -> list[str]:
        """Return the command lines of all processes that run a script of this test."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                words = _words(entry)
                if any(str(self.folder) in word for word in words):
                    found.append(f"{entry.name}: {' '.join(words)}")
        return found

    def wait_for(self, file: str, seconds: float = 30.0) -> str:
        """Return the text of a file that a server writes, as soon as it is there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            path = self.folder / file
            if path.exists() and (text := path.read_text()):
                return text
            time.sleep(0.02)
        raise AssertionError(f"{file} was not written within {seconds} s")


def _words(entry: Path) -> Sequence[str]:
    try:
        return (entry / "cmdline").read_text(errors="replace").split("\0")
    except OSError:  # it has ended, or is ending
        return ()
