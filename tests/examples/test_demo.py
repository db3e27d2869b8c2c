from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples._servers import environment
from tests.examples.shops import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = "HEALTHMW_TEST_MARK"


class Run:
    """A run of the demo, whose processes can be told from all others by a mark."""

    def __init__(self, demo: Path) -> None:
        self._mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, str(demo)],
            env=environment(**{_MARK: self._mark}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def until(self, text: str) -> None:
        """Read its output up to a line with `text` in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(f"the demo ended, and never said {text!r}")

    def end(self) -> str:
        said, _ = self.process.communicate(timeout=180)
        return said

    def left_behind(self) -> list[int]:
        """Return the pids of what it has started and not ended."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                marked = f"{_MARK}={self._mark}".encode() in environ.read_bytes()
            except OSError:  # it ended meanwhile, or is another user's
                continue
            if marked:
                found.append(int(environ.parent.name))
        return found


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        for pid in run.left_behind():
            os.kill(pid, signal.SIGKILL)
        run.process.communicate(timeout=10)


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="needs Linux's /proc"
)


@needs_proc
def test_the_demo_shows_what_it_claims_and_leaves_nothing_behind(runs: list[Run]) -> None:
    run = Run(EXAMPLES / "demo.py")
    runs.append(run)
    said = run.end()

    assert run.process.returncode == 0, said
    assert "answers were as claimed" in said
    assert "503 FAILED: database (failed)" in said
    assert "exit 1: the deploy halts" in said
    assert "\x1b" not in said  # no colours but on a terminal
    assert run.left_behind() == []


@needs_proc
def test_the_demo_fails_when_reality_differs(runs: list[Run], tmp_path: Path) -> None:
    copy = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("__pycache__", "shop.db*"))
    app = copy / "flask" / "app.py"
    app.write_text(app.read_text().replace('fallback=["invoice"]', 'fallback=["barter"]'))
    demo = copy / "demo.py"
    demo.write_text(demo.read_text().replace("PATIENCE = 30.0", "PATIENCE = 20.0"))

    run = Run(demo)
    runs.append(run)
    said = run.end()

    assert run.process.returncode == 1, said
    assert "Not as claimed" in said
    assert "barter" in said
    assert "The end of flask.log" in said
    assert run.left_behind() == []


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_takes_its_servers_along(
    runs: list[Run], number: signal.Signals
) -> None:
    run = Run(EXAMPLES / "demo.py")
    runs.append(run)
    run.until("200 OKAY")
    assert len(run.left_behind()) > 3  # itself, and a server and a worker at least

    run.process.send_signal(number)
    run.end()

    assert run.process.returncode == 128 + number
    assert run.left_behind() == []
