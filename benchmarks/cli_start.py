"""How long `healthmw check URL` takes from start to exit, beside what it can't do without.

The limit is `python -c "import http.client"`: an interpreter and an HTTP client. Rounds are
interleaved, so that a busy machine is unfair to all alike. The limit is measured twice: what its
two medians differ by is the noise.

    python -m benchmarks.cli_start [--json FILE]
"""

from __future__ import annotations

import http.server
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from benchmarks._measure import CONTROL, Results, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON = sys.executable
LIMIT = [PYTHON, "-c", "import http.client"]


class Okay(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"OKAY")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name for it
        pass


def milliseconds(command: list[str]) -> Callable[[], float]:
    """Return a candidate: how long a process takes from start to exit."""

    def measure() -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return 1000 * (time.perf_counter() - start)

    return measure


def main() -> None:
    results = Results("How long `healthmw check URL` takes from start to exit.")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Okay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/health_check"
    healthmw = shutil.which("healthmw")
    check = [healthmw] if healthmw else [PYTHON, "-m", "healthmw"]
    commands = {
        "python -c 'import http.client'": LIMIT,
        "healthmw check URL": [*check, "check", url],
    }
    first, ours = commands
    samples = take_turns(
        {name: milliseconds(command) for name, command in commands.items()},
        rounds=results.rounds(30),
    )
    server.shutdown()
    results.table(
        "milliseconds from start to exit",
        [
            {"": name, "ms": samples.median(name), "beside": samples.ratio(name, first)}
            for name in (first, CONTROL, ours)
        ],
    )
    results.finish()


if __name__ == "__main__":
    main()
