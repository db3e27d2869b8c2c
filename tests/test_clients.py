"""What those get who ask in real life: HAProxy, curl, wget, Python's urllib."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.programs import program, served
from tests.states import failing, healthy
from tests.transports import TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WSGI = TRANSPORTS["wsgi"]


@pytest.fixture(scope="module")
def well() -> Iterator[str]:
    with served(WSGI.middleware(healthy())) as port:
        yield f"http://127.0.0.1:{port}/health_check"


@pytest.fixture(scope="module")
def unwell() -> Iterator[str]:
    with served(WSGI.middleware(failing())) as port:
        yield f"http://127.0.0.1:{port}/health_check"


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


def test_curl(well: str, unwell: str) -> None:
    curl = program("curl", package="curl")

    assert run(curl, "-sS", well) == (0, "OKAY")
    assert run(curl, "-sSf", well) == (0, "OKAY")
    assert run(curl, "-sS", unwell) == (0, "FAILED: search (failed)")
    assert run(curl, "-sSf", unwell)[0] == 22
    _, said = run(curl, "-sS", "-H", "Accept: application/json", unwell)
    assert json.loads(said)["status"] == "fail"
    _, head = run(curl, "-sSI", well)
    assert "Health-Status: okay" in head
    _, page = run(curl, "-sS", "-H", "Accept: text/html", well)
    assert page.startswith("<!doctype html>")


def test_wget(well: str, unwell: str) -> None:
    wget = program("wget", package="wget")

    assert run(wget, "-qO-", well) == (0, "OKAY")
    assert run(wget, "-q", "--tries=1", "--spider", well)[0] == 0
    assert run(wget, "-qO-", "--tries=1", "--content-on-error", unwell) == (
        8,
        "FAILED: search (failed)",
    )


def test_urllib(well: str, unwell: str) -> None:
    with urllib.request.urlopen(well, timeout=10) as answer:  # noqa: S310 - our own URL
        assert (answer.status, answer.read()) == (200, b"OKAY")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(unwell, timeout=10)  # noqa: S310 - our own URL
    with caught.value as answer:
        assert (answer.status, answer.read()) == (503, b"FAILED: search (failed)")


def test_haproxy(well: str, unwell: str, tmp_path: Path, free_port: Callable[[], int]) -> None:
    haproxy = program("haproxy", package="haproxy")
    port = free_port()
    places = {"well": well, "unwell": unwell}
    servers = "\n".join(
        f"  server {name} {url.split('/')[2]} check inter 200ms fall 1 rise 1"
        for name, url in places.items()
    )
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        f"""
defaults
  mode http
  timeout connect 2s
  timeout client 5s
  timeout server 5s
  timeout check 2s
listen stats
  bind 127.0.0.1:{port}
  stats enable
  stats uri /stats
backend app
  option httpchk GET /health_check
{servers}
""",
        encoding="utf-8",
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([haproxy, "-db", "-f", config], stdout=log, stderr=log)
    try:
        seen: dict[str, tuple[str, str]] = {}
        deadline = time.monotonic() + 60
        # While a check is under way, the code of the last one isn't told.
        while (seen.get("well"), seen.get("unwell")) != (("UP", "200"), ("DOWN", "503")):
            assert time.monotonic() < deadline, (seen, (tmp_path / "log").read_text())
            time.sleep(0.1)
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/stats;csv", timeout=5
                ) as page:
                    rows = csv.DictReader(io.StringIO(page.read().decode()[2:]))
                    seen = {row["svname"]: (row["status"], row["check_code"]) for row in rows}
            except OSError:
                continue  # it is not up yet
    finally:
        process.terminate()
        process.wait(30)
