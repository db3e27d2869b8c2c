"""Real workers for the tests, with all their processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

_PATIENCE = 25.0


class Worker:
    """A worker and all its processes, run as `python -m COMMAND` beside the apps of the tests."""

    def __init__(self, *command: str, broker: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=Path(__file__).parent,
            env={**os.environ, "BROKER": broker, "C_FORCE_ROOT": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait(_PATIENCE)
