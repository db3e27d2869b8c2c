"""Programs that tests run: the system's own, and some of a few lines of Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent

_BEGIN = """
import os
if "COVERAGE_PROCESS_START" in os.environ:
    import coverage
    coverage.process_startup()
import asyncio, logging, os, signal, sys, threading, time
import anyio
from healthmw import CircuitBreaker, Health, Reason, Status
from healthmw.testing import ScriptedProbe
from tests.waiting import InThread, defy_cancellation, until, until_sync

logging.disable()
signal.alarm(60)  # whatever happens, it ends
"""


def run_program(code: str, *, measured: bool = True) -> str:
    """Return what the program wrote. It must end well, in time, and complain of nothing.

    Coverage is `measured`, where it is of the tests. It has locks of its own, which it does not
    renew: a program that forks while other threads are at work may find one held, for ever.
    """
    env = dict(os.environ)
    env.pop("COVERAGE_PROCESS_START", None)
    if measured and "COVERAGE_RUN" in env:
        env["COVERAGE_PROCESS_START"] = "pyproject.toml"
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _BEGIN + textwrap.dedent(code)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert not run.stderr, run.stderr
    assert run.returncode == 0
    return run.stdout


def program(name: str, *, package: str) -> str:
    """Return the path of a program; skip the test without it, or fail where it is required."""
    found = shutil.which(name)
    if found is None:
        do_without(f"{name} is not installed: the Debian package {package} has it")
    return found


def do_without(missing: object) -> NoReturn:
    """Skip the test for what is missing on this machine, or fail where nothing may be missing.

    `HEALTHMW_REQUIRE_SERVICES=1` is set where all that the tests need is installed, as in CI.
    """
    if os.environ.get("HEALTHMW_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{missing}, and HEALTHMW_REQUIRE_SERVICES=1 demands it", pytrace=False)
    pytest.skip(str(missing))


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_args: object) -> None: ...


@contextmanager
def served(app: Any) -> Iterator[int]:
    """Serve the WSGI app on a port of its own, until the end of the block."""
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
