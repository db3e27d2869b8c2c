"""One generation of the app: a server process on a port that is kept for it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from tests.preboot.router import HEALTH, Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.preboot.scenarios import Setting

PATIENCE = 90.0  # seconds until something that ought to happen counts as not happening


class Generation(Backend):
    """The server of one release. It runs from `start` until `close` at the latest."""

    def __init__(
        self, name: str, setting: Setting, environ: Mapping[str, str], folder: Path
    ) -> None:
        # Never listens: keeps the port ours while nobody does.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        super().__init__(name, self._reserved.getsockname()[1])
        self._command = setting.command(str(self.port))
        self._environ = environ
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    @property
    def listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def answers(self, path: str = "/") -> bool:
        """Tell whether it answers 200; a health check also says why."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return response.status == 200 and (path != HEALTH or body == b"OKAY")

    def tell_to_stop(self) -> None:
        """Send SIGTERM to all of its processes, as Heroku does."""
        self._signal(signal.SIGTERM)

    def tail(self) -> str:
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""

    def kill(self) -> None:
        """End whatever is left of it."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(PATIENCE)

    def close(self) -> None:
        self.kill()
        self._reserved.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def eventually(holds: Callable[[], object], explain: Callable[[], object] = str) -> None:
    """Wait until `holds()`; after a long time, fail and explain."""
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            raise AssertionError(f"it did not happen within {PATIENCE:g} s: {explain()}")
        time.sleep(0.05)
