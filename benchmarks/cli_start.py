"""How long `healthmw check URL` takes from start to exit, beside what it can't do without.

The limit is `python -c "import http.client"`: an interpreter and an HTTP client. Rounds are
interleaved (A B C A B C), so that a busy machine is unfair to all alike. The limit is measured
twice: what its two medians differ by is the noise.

    python benchmarks/cli_start.py [--rounds 30] [--json]
"""

from __future__ import annotations

import argparse
import http.server
import json
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time

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


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """Return the median duration of each command, in seconds."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Okay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/health_check"
    healthmw = shutil.which("healthmw")
    check = [healthmw] if healthmw else [PYTHON, "-m", "healthmw"]
    commands = {
        "import http.client": LIMIT,
        "healthmw check URL": [*check, "check", url],
        "import http.client, again": LIMIT,
    }
    measure(commands, 2)  # the byte code gets written
    medians = measure(commands, args.rounds)
    server.shutdown()
    ratios = {name: value / medians["import http.client"] for name, value in medians.items()}
    if args.json:
        where = {"python": platform.python_version(), "machine": platform.machine()}
        print(json.dumps({"medians_seconds": medians, "ratios": ratios, **where}))
        return
    for name, value in medians.items():
        print(f"{name:<28}{value * 1000:7.1f} ms{ratios[name]:7.2f} x")


if __name__ == "__main__":
    main()
