"""The bind gate under real servers: no port before the app is ready, and none if it never is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers.boot import PATIENCE, ROOT, Server, eventually, scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SERVERS = {
    "uvicorn": "uvicorn --port {port}",
    "uvicorn uvloop": "uvicorn --loop uvloop --port {port}",
    "hypercorn": "hypercorn --bind 127.0.0.1:{port}",
    "hypercorn alone": "hypercorn --workers 0 --bind 127.0.0.1:{port}",
}


@contextmanager
def listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(100)
        yield


def command(server: str, port: int) -> list[str]:
    words = SERVERS[server].format(port=port).split()
    return [sys.executable, "-m", *words, "tests.servers.deploy_asgi:app"]


def answers(port: int) -> bool:
    """Tell whether anything accepts connections on `port`."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("server", SERVERS)
def test_no_port_is_open_before_the_app_is_ready(
    server: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port, environ = free_port(), scenario("journaled", tmp_path)
    journal, seen = tmp_path / "journal", []

    def tries() -> int:
        return len(journal.read_text().splitlines()) if journal.exists() else 0

    def watch() -> None:
        """See the checks fail a few times with no port open; then have them pass."""
        eventually(lambda: tries() >= 3)
        seen.append(answers(port))
        with listening(tmp_path / "dependency"):
            ended.wait(PATIENCE)

    ended = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with Server(command(server, port), tmp_path, STARTUP_TIMEOUT="60", **environ) as running:
            assert seen == [False], "the port was open before the app was ready"
            assert running.get().body == b"OKAY", "from the first moment on"
    finally:
        ended.set()
        watcher.join()


@pytest.mark.parametrize("server", sorted(SERVERS.keys() - {"hypercorn"}))
def test_a_server_that_is_told_to_stop_does_not_wait_for_the_app(
    server: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    environ = {**os.environ, **scenario("journaled", tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command(server, free_port()),
        cwd=tmp_path,
        env={**environ, "STARTUP_TIMEOUT": "3600"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        try:
            eventually((tmp_path / "journal").exists)
            running.send_signal(signal.SIGTERM)
            out, _ = running.communicate(timeout=PATIENCE)
        finally:
            running.kill()
    assert running.returncode != 0
    assert "stopped by SIGTERM before it was ready to start" in out


@pytest.mark.parametrize("server", SERVERS)
def test_an_app_that_never_gets_ready_ends_its_process_and_says_why(
    server: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    environ = {**os.environ, **scenario("journaled", tmp_path), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command(server, free_port()),
        cwd=tmp_path,
        env={**environ, "STARTUP_TIMEOUT": "0.5"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    # With workers, hypercorn itself ends with 0 when the start-up of an app has failed.
    assert run.returncode != 0 or server == "hypercorn"
    assert "not ready to start after 0.5 s: database (failed)" in run.stdout + run.stderr
