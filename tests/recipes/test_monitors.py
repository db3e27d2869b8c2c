"""The recipes for monitors: cron's lines, and Prometheus with its blackbox exporter."""

from __future__ import annotations

import contextlib
import http.client
import json
import shlex
import subprocess
import sys
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

from healthmw import Degraded, Health
from healthmw.wsgi import HealthApp
from tests.programs import program, served
from tests.recipes.pages import Daemon, recipe, shell
from tests.recipes.test_platforms import jsons
from tests.servers.boot import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = "monitors"
HEALTHMW = shlex.join([sys.executable, "-m", "healthmw"])
SITE = "https://shop.example.com"


def line(file: str, address: str) -> str:
    """Return the command of the line for cron, without its five fields."""
    last = recipe(PAGE, file, {SITE: f"http://{address}"}).splitlines()[-1]
    assert "%" not in last, "cron would take it for the end of the line"
    return last.split(maxsplit=5)[5].replace("healthmw", HEALTHMW, 1)


def test_crons_line_writes_only_what_is_wrong(well: str, unwell: str, tmp_path: Path) -> None:
    assert shell(line("crontab", well), tmp_path) == (0, "")
    _, said = shell(line("crontab", unwell), tmp_path)
    assert len(said.splitlines()) == 1
    assert "FAILED: search (failed)" in said
    _, said = shell(line("crontab", "127.0.0.1:1"), tmp_path)
    assert "refused" in said


def test_the_dead_mans_line_reports_only_when_well(well: str, unwell: str, tmp_path: Path) -> None:
    curl = "curl -fsS https://checks.example.com/shop"
    for address, reports in ((well, True), (unwell, False)):
        command = line("crontab-dead-man", address)
        assert curl in command
        shell(command.replace(f"{curl} >/dev/null", "touch reported"), tmp_path)
        assert tmp_path.joinpath("reported").exists() == reports
        tmp_path.joinpath("reported").unlink(missing_ok=True)


@pytest.fixture
def blackbox(tmp_path: Path, free_port: Callable[[], int]) -> Daemon:
    """The exporter, not yet started."""
    exporter = program("prometheus-blackbox-exporter", package="prometheus-blackbox-exporter")
    folder = tmp_path / "blackbox"
    folder.mkdir()
    config = folder / "blackbox.yml"
    config.write_text(recipe(PAGE, "blackbox.yml"))
    port = free_port()
    options = [f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    return Daemon([exporter, *options], folder, port)


def other_app(_environ: object, start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"<p>This domain is for sale. OKAY?</p>"]


def test_the_blackbox_exporter_wants_okay(blackbox: Daemon, well: str, unwell: str) -> None:
    with blackbox, served(other_app) as other:
        for address, success in ((well, 1), (unwell, 0), (f"127.0.0.1:{other}", 0)):
            target = urllib.parse.quote(f"http://{address}/health_check", safe="")
            answer = blackbox.get(f"/probe?module=okay&target={target}")
            assert f"\nprobe_success {success}\n" in answer.body.decode()


def test_prometheus_raises_the_alert(
    blackbox: Daemon, well: str, unwell: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    swaps = {
        f'["{SITE}/health_check"]': f'["http://{well}/health_check", "http://{unwell}/health_check"]',
        "blackbox:9115": f"127.0.0.1:{blackbox.port}",
        "15s": "1s",
        "12s": "1s",
    }
    config = tmp_path / "prometheus.yml"
    config.write_text("global: {evaluation_interval: 1s}\n" + recipe(PAGE, "prometheus.yml", swaps))
    alerts = {"for: 1m": "for: 1s", "for: 5m": "for: 1s"}
    tmp_path.joinpath("alerts.yml").write_text(recipe(PAGE, "alerts.yml", alerts))
    promtool = program("promtool", package="prometheus")
    subprocess.run([promtool, "check", "config", config], check=True, timeout=60)
    port = free_port()
    command = [
        program("prometheus", package="prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with blackbox, Daemon(command, tmp_path, port, path="/-/ready") as prometheus:

        def firing() -> list[dict[str, Any]]:
            answer = json.loads(prometheus.get("/api/v1/alerts").body)
            alerts: list[dict[str, Any]] = answer["data"]["alerts"]
            return [one for one in alerts if one["state"] == "firing"]

        def told() -> bool:
            return {one["labels"]["alertname"] for one in firing()} == {"NotOkay"}

        eventually(told, prometheus.tail)
        (alert,) = firing()
    assert alert["annotations"]["summary"] == f"http://{unwell}/health_check does not say OKAY"


def test_consul_is_told_of_a_warning() -> None:
    (definition,) = jsons(PAGE)
    assert definition["service"]["check"]["http"].endswith("/health_check/consul")
    health = Health()
    health.group("consul", codes={"degraded": 429})
    health.add("database", lambda: Degraded("slow"), groups=["ready", "consul"])
    with served(HealthApp(health)) as port:

        def status(path: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", path)
            with contextlib.closing(connection):
                return connection.getresponse().status

        assert status("/health_check/consul") == 429
        assert status("/health_check") == 200
