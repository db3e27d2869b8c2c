"""The release script in plain shell: nc, curl, and a comparison with OKAY."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.programs import program
from tests.servers.boot import PATIENCE, ROOT, scenario

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Check = Callable[..., subprocess.CompletedProcess[str]]

SCRIPT = ROOT / "examples" / "release_check.sh"
SERVERS = {
    "gunicorn": "gunicorn --bind 127.0.0.1:$PORT tests.servers.wsgi_app:app",
    "uvicorn": "uvicorn --port $PORT tests.servers.asgi_app:app",
}


@pytest.fixture(autouse=True)
def tools() -> None:
    program("nc", package="netcat-openbsd")
    program("curl", package="curl")


@pytest.fixture
def check(tmp_path: Path, free_port: Callable[[], int]) -> Check:
    """Return a function that runs the script around a command."""

    def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        given = {
            **os.environ,
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "PORT": str(free_port()),
            **environ,
        }
        return subprocess.run(
            [str(SCRIPT), *command],
            cwd=tmp_path,
            env=given,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )

    return run


@pytest.mark.parametrize("server", list(SERVERS))
def test_a_server_that_is_well_passes(server: str, tmp_path: Path, check: Check) -> None:
    done = check(
        "sh", "-c", f"exec {sys.executable} -m {SERVERS[server]}", **scenario("slow", tmp_path)
    )

    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        0,
        "release check: PASSED: /health_check says OKAY",
    )


@pytest.mark.parametrize("server", list(SERVERS))
def test_a_server_whose_dependency_is_dead_fails(server: str, tmp_path: Path, check: Check) -> None:
    done = check(
        "sh",
        "-c",
        f"exec {sys.executable} -m {SERVERS[server]}",
        TRIES="2",
        **scenario("well", tmp_path),
    )

    assert done.returncode == 1
    assert "FAILED: /health_check says: FAILED: database (failed)" in done.stderr


def test_the_server_is_gone_afterwards(tmp_path: Path, check: Check) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    check(
        "sh",
        "-c",
        f"exec {sys.executable} -m {SERVERS['gunicorn']}",
        PORT=str(port),
        **scenario("slow", tmp_path),
    )

    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_server_that_ends_early_fails(check: Check) -> None:
    done = check("sh", "-c", "exit 3")

    assert done.returncode == 1
    assert "FAILED: the server ended before it listened" in done.stderr


def test_a_server_that_never_listens_fails(check: Check) -> None:
    done = check("sleep", "60", BOOT_SECONDS="1")

    assert done.returncode == 1
    assert "after 1 s" in done.stderr


def test_a_port_that_is_taken_is_not_asked(check: Check) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        done = check("true", PORT=str(listener.getsockname()[1]))

    assert done.returncode == 1
    assert "is taken" in done.stderr


def test_without_a_command_it_says_so(check: Check) -> None:
    done = check()

    assert done.returncode == 1
    assert "which command?" in done.stderr
