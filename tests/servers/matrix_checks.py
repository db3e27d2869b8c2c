"""The checks of the apps in the server matrix, and what their own route tells."""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from pathlib import Path

from healthmw import Health
from tests.servers.checks import background, database

if importlib.util.find_spec("touched") is not None:
    importlib.import_module("touched")  # a file for development servers to see changed


def maybe_stuck() -> None:
    """Hang for ever once the test says so."""
    if Path("stuck").exists():
        threading.Event().wait()


def make() -> Health:
    health = Health(release="v42", max_age=0.5)
    health.add("database", database, max_age=0.1)
    # Not in `ready`: a worker that is new, as those of --max-requests are, has not run it yet.
    health.add("background", background, interval=0.2, stale_after=60, groups=["release"])
    health.add("stuck", maybe_stuck, critical=False, timeout=0.3, max_age=0.1)
    return health


def hello() -> bytes:
    return str(os.getpid()).encode()
