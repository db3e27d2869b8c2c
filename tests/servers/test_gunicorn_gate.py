"""gunicorn's hook: no port before the app is ready, and none if it never is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from healthmw.gunicorn import bind_gate
from tests.servers.boot import PATIENCE, ROOT, Server, eventually, scenario
from tests.servers.test_bind_gate import answers, listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOOKS = """
from healthmw.gunicorn import bind_gate
on_starting = bind_gate("{target}", timeout={timeout})
"""


HEALTH = "tests.servers.deploy_wsgi:health"


def command(folder: Path, port: int, timeout: float, target: str = HEALTH) -> list[str]:
    text = HOOKS.format(target=target, timeout=timeout)
    folder.joinpath("hooks.py").write_text(text)
    words = f"-m gunicorn -c hooks.py --bind 127.0.0.1:{port} tests.servers.deploy_wsgi:app"
    return [sys.executable, *words.split()]


def gunicorn(folder: Path, port: int, timeout: float, target: str = HEALTH) -> Server:
    words = command(folder, port, timeout, target)
    return Server(words, folder, **scenario("journaled", folder))


def test_no_port_is_open_before_the_app_is_ready(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port, journal, seen, ended = free_port(), tmp_path / "journal", [], threading.Event()

    def watch() -> None:
        eventually(lambda: journal.exists() and len(journal.read_text().splitlines()) >= 2)
        seen.append(answers(port))
        with listening(tmp_path / "dependency"):
            ended.wait(PATIENCE)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with gunicorn(tmp_path, port, 60) as server:
            assert seen == [False], "the port was open before the app was ready"
            assert server.get().body == b"OKAY"
    finally:
        ended.set()
        watcher.join()


def test_gunicorn_ends_when_the_app_never_gets_ready(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    server = gunicorn(tmp_path, free_port(), 0.5)
    with pytest.raises(AssertionError, match="the server ended"), server:
        pass
    assert server.exit_status == 1
    assert "not ready to start after 0.5 s: database (failed)" in server.tail()
    assert "is not ready, so no port is opened" in server.tail()
    assert "Listening at" not in server.tail()


@contextmanager
def held_back(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A gunicorn in a session of its own whose gate has asked, and goes on waiting."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **scenario("journaled", folder)}
    with subprocess.Popen(
        command(folder, port, 3600),
        cwd=folder,
        env={**environ, "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            eventually((folder / "journal").exists)
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


def test_the_gate_ends_with_gunicorn(tmp_path: Path, free_port: Callable[[], int]) -> None:
    with held_back(tmp_path, free_port()) as running:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=PATIENCE)  # up to the end of all that could write


def test_an_interrupted_gate_says_nothing_more(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with held_back(tmp_path, free_port()) as running:
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
        out, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert "KeyboardInterrupt" not in out


def test_gunicorn_ends_though_a_check_blocks_for_ever(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    tmp_path.joinpath("blocked.py").write_text(
        "import time\n"
        "from healthmw import Health\n"
        "health = Health()\n"
        "@health.probe('database')\n"
        "async def database() -> None:\n"
        "    time.sleep(3600)\n"
    )
    server = gunicorn(tmp_path, free_port(), 0.5, "blocked:health")
    with pytest.raises(AssertionError, match="the server ended"), server:
        pass
    assert server.exit_status == 1
    assert "not ready to start after 0.5 s: a check blocks the event loop" in server.tail()


def test_gunicorn_ends_when_the_target_is_no_health(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    server = gunicorn(tmp_path, free_port(), 60, "tests.servers.deploy_wsgi:app")
    with pytest.raises(AssertionError, match="the server ended"), server:
        pass
    assert server.exit_status == 1
    assert "deploy_wsgi:app must be a Health, not HealthMiddleware" in server.tail()


def test_the_options_are_looked_at_first() -> None:
    with pytest.raises(ValueError, match=r"^timeout=0 must be"):
        bind_gate("app:health", timeout=0)
    with pytest.raises(ValueError, match=r"^target='app' must name module and attribute"):
        bind_gate("app")
