"""The recipe for systemd: the unit by its own verifier, and what the unit's command tells it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from tests.docs_page import blocks
from tests.programs import program
from tests.recipes.pages import HOW_TO, Daemon, recipe
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMAND = "/srv/shop/.venv/bin/uvicorn"


def verify(folder: Path, *swaps: tuple[str, str]) -> str:
    """Return what systemd has against the unit."""
    analyze = program("systemd-analyze", package="systemd")
    unit = folder / "shop.service"
    unit.write_text(recipe("systemd", "shop.service", dict([(COMMAND, sys.executable), *swaps])))
    done = subprocess.run(
        [analyze, "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # It looks at the machine's own units as well, which are none of our business.
    return "\n".join(line for line in done.stderr.splitlines() if "shop.service" in line)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    assert verify(tmp_path) == ""
    assert "WatchdogSecs" in verify(tmp_path, ("WatchdogSec=", "WatchdogSecs="))


def test_the_app_and_the_unit_of_the_page_get_along(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    (app,) = [one for one in blocks(HOW_TO / "systemd.md") if one.code.startswith("# app.py\n")]
    tmp_path.joinpath("app.py").write_text(app.code)
    address = tmp_path / "notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(os.fspath(address))
        systemd.settimeout(PATIENCE)
        port = free_port()
        unit = recipe("systemd", "shop.service", {COMMAND: "uvicorn", "8000": str(port)})
        (words,) = [
            line.partition("=")[2].split()
            for line in unit.splitlines()
            if line.startswith("ExecStart=")
        ]
        server = Daemon([sys.executable, "-m", *words], tmp_path, port, path="/health_check")
        server.tell(NOTIFY_SOCKET=os.fspath(address), WATCHDOG_USEC="1000000")
        with server:
            said: set[str] = set()
            while not said >= {"READY=1", "STATUS=okay", "WATCHDOG=1"}:
                said |= set(systemd.recv(4096).decode().splitlines())
