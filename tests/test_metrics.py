"""What monitors are told: by the endpoint, and by the app's own registry."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from healthmw import CircuitBreaker, Health
from healthmw.access import Token
from healthmw.prometheus import HealthCollector
from tests.programs import program, served
from tests.states import STATES, broken, failing, healthy, open_circuit, well
from tests.transports import TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WSGI = TRANSPORTS["wsgi"]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(health: Health, form: str = "prometheus", level: str = "full") -> str:
    app = WSGI.middleware(health, show=level)
    return WSGI.ask(app, query=f"format={form}").body.decode()


def samples(text: str, form: str = "prometheus") -> Samples:
    read = (
        openmetrics.text_string_to_metric_families
        if form == "openmetrics"
        else text_string_to_metric_families
    )
    found: Samples = {}
    for family in read(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def one(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


@pytest.mark.parametrize("form", ["prometheus", "openmetrics"])
@pytest.mark.parametrize("level", ["summary", "names", "full"])
@pytest.mark.parametrize("state", STATES)
def test_both_formats_can_be_read(state: str, level: str, form: str) -> None:
    found = samples(scraped(STATES[state](), form, level), form)

    assert one(found, "healthmw_release_info", release="v42") == 1
    statuses = [value for (name, _), value in found.items() if name == "healthmw_group_status"]
    assert sorted(statuses) == [0, 0, 0, 1]
    assert all(name.startswith("healthmw_") for name, _ in found)
    assert not any(name.endswith("up") for name, _ in found)


def test_both_formats_say_the_same() -> None:
    health = failing(clock=lambda: 1000.0)

    assert samples(scraped(health)) == samples(scraped(health, "openmetrics"), "openmetrics")


def test_the_past_of_a_check_is_counted() -> None:
    now, fails = [1000.0], [False]

    def probe() -> None:
        if fails[0]:
            raise OSError("down")

    health = Health(max_age=0, clock=lambda: now[0])
    health.add("search", probe, critical=False)
    for step in (False, True, True, False):
        fails[0] = step
        health.run_sync()
    health.checks["search"].max_age = 60
    now[0] += 2.5
    found = samples(scraped(health))

    assert one(found, "healthmw_check_status", check="search", status="okay") == 1
    assert one(found, "healthmw_check_status", check="search", status="failed") == 0
    assert one(found, "healthmw_check_critical", check="search") == 0
    assert one(found, "healthmw_check_runs_total", check="search") == 4
    assert one(found, "healthmw_check_failures_total", check="search", reason="failed") == 2
    assert one(found, "healthmw_check_changes_total", check="search") == 2
    assert one(found, "healthmw_check_age_seconds", check="search") == 2.5
    assert 0 < one(found, "healthmw_check_duration_seconds", check="search") < 1


def test_a_check_that_never_ran_has_no_age() -> None:
    found = samples(scraped(STATES["unknown"]()))

    assert one(found, "healthmw_check_status", check="search", status="unknown") == 1
    assert one(found, "healthmw_check_runs_total", check="search") == 0
    assert ("healthmw_check_age_seconds", frozenset({("check", "search")})) not in found


def test_an_open_circuit_is_told() -> None:
    found = samples(scraped(open_circuit()))

    assert one(found, "healthmw_breaker_state", check="payments", state="open") == 1
    assert one(found, "healthmw_breaker_state", check="payments", state="closed") == 0
    assert one(found, "healthmw_breaker_transitions_total", check="payments", state="open") == 1
    assert one(found, "healthmw_breaker_transitions_total", check="payments", state="closed") == 0
    assert one(found, "healthmw_breaker_rejected_total", check="payments") == 0
    assert one(found, "healthmw_breaker_state", check="cache", state="closed") == 1


def test_below_full_there_is_a_verdict_and_no_number() -> None:
    names = {name for name, _ in samples(scraped(failing(), level="names"))}
    summary = {name for name, _ in samples(scraped(failing(), level="summary"))}

    verdict = {"healthmw_group_status", "healthmw_group_passing", "healthmw_release_info"}
    assert summary == verdict
    assert names == verdict | {"healthmw_check_status", "healthmw_check_critical"}


@pytest.mark.parametrize("state", STATES)
def test_promtool_finds_nothing_to_say(state: str) -> None:
    promtool = program("promtool", package="prometheus")

    for level in ("summary", "names", "full"):
        told = subprocess.run(
            [promtool, "check", "metrics"],
            input=scraped(STATES[state](), level=level),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


# In the app's own registry


def collected(health: Health, **options: str) -> Samples:
    registry = CollectorRegistry()
    registry.register(HealthCollector(health, **options))
    return samples(generate_latest(registry).decode())


@pytest.mark.parametrize("make", [failing, open_circuit])
def test_the_collector_has_what_the_endpoint_has(make: Callable[..., Health]) -> None:
    health = make(clock=lambda: 1000.0)
    expected = samples(scraped(health))

    assert collected(health) == expected


def test_the_collector_runs_nothing() -> None:
    ran = []
    health = Health(max_age=0)
    health.add("database", lambda: ran.append(1))

    assert one(collected(health), "healthmw_group_status", group="ready", status="unknown") == 1
    assert not ran
    health.run_sync()
    found = collected(health)
    assert one(found, "healthmw_group_status", group="ready", status="okay") == 1
    assert one(found, "healthmw_check_runs_total", check="database") == len(ran) == 1


def test_the_collector_shows_what_is_too_old_as_unknown() -> None:
    now = [1000.0]
    health = Health(clock=lambda: now[0])
    health.add("database", well, interval=10)
    health._runners["database"].begin(lambda: pytest.fail("it is a plain function"))
    deadline = time.monotonic() + 30
    while not health.history("database").runs:
        assert time.monotonic() < deadline
        time.sleep(0.005)

    assert one(collected(health), "healthmw_check_status", check="database", status="okay") == 1
    now[0] += 1000
    assert one(collected(health), "healthmw_check_status", check="database", status="unknown") == 1
    assert one(collected(health), "healthmw_group_passing", group="ready") == 0


def test_the_collector_is_for_one_group() -> None:
    health = healthy()
    health.add("search", broken, groups=["release"])
    for group in ("ready", "release"):
        health.run_sync(group)

    assert one(collected(health), "healthmw_group_passing", group="ready") == 1
    found = collected(health, group="release")
    assert one(found, "healthmw_group_passing", group="release") == 0
    assert one(found, "healthmw_check_status", check="search", status="failed") == 1
    with pytest.raises(ValueError, match="no group or check 'mine'"):
        HealthCollector(health, group="mine")


def test_checks_that_are_added_later_are_collected_too() -> None:
    health, registry = Health(), CollectorRegistry()
    registry.register(HealthCollector(health))

    health.add("late", well, breaker=CircuitBreaker())

    assert 'healthmw_check_status{check="late",status="unknown"} 1.0' in str(
        generate_latest(registry).decode()
    )


def test_without_its_library_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['prometheus_client.core'] = None; import healthmw.prometheus"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "healthmw.exceptions.MissingExtraError: healthmw.prometheus needs an optional library: "
        "pip install 'healthmw[prometheus]'"
    )


# By the real thing


def query(port: int, expression: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{port}/api/v1/query?query={expression}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


@contextmanager
def prometheus(config: str, port: int, folder: Path) -> Iterator[None]:
    """Run a Prometheus of our own, until its end of the block."""
    file = folder / "prometheus.yml"
    file.write_text(config, encoding="utf-8")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus", package="prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def test_prometheus_scrapes_a_failing_app(tmp_path: Path, free_port: Callable[[], int]) -> None:
    program("prometheus", package="prometheus")
    token = "a-token-for-the-scraper"
    app = WSGI.middleware(failing(), authorize=Token(token))
    port = free_port()
    with served(app) as target:
        config = f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: negotiated
  metrics_path: /health_check
  authorization: {{credentials: {token}}}
  static_configs: [{{targets: ["127.0.0.1:{target}"]}}]
- job_name: chosen
  metrics_path: /health_check
  params: {{format: [prometheus]}}
  static_configs: [{{targets: ["127.0.0.1:{target}"]}}]
"""
        with prometheus(config, port, tmp_path):
            deadline = time.monotonic() + 60
            found: list[dict[str, Any]] = []
            while len(found) < 2:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
                try:
                    found = query(port, 'healthmw_group_passing{group="ready"}')
                except OSError:
                    continue  # it is not up yet
            assert [one["value"][1] for one in found] == ["0", "0"]
            assert {one["metric"]["job"] for one in found} == {"negotiated", "chosen"}
            assert {one["value"][1] for one in query(port, "up")} == {"1"}
            (runs,) = query(port, 'healthmw_check_runs_total{check="search"}')
            assert runs["metric"]["job"] == "negotiated"  # the other one sees names
