"""The checks of a server, which `watch` and `check --verbose` ask for as health+json."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from healthmw import CircuitBreaker, Degraded, Health
from healthmw.access import Token
from healthmw.wsgi import HealthApp
from tests.cli.servers import answer, answering
from tests.programs import served

if TYPE_CHECKING:
    from tests.cli.servers import Bench

TOKEN = "open-sesame-0123456789"
WITH_TOKEN = ["--header", f"Authorization: Bearer {TOKEN}"]


def shop() -> Health:
    health = Health(release="v42")
    health.add("disk", lambda: Degraded("95 % full"))

    @health.probe("search", critical=False, breaker=CircuitBreaker(consecutive_failures=1))
    def search() -> None:
        raise OSError("away")

    return health


def told(out: str) -> list[str]:
    """Return the lines of a watch without time, URL and what was before."""
    return [re.sub(r"^\S+ +|http://\S+ ?|\(was .*", "", line).strip() for line in out.splitlines()]


def document(**members: Any) -> bytes:
    body = json.dumps({"status": "pass", **members}).encode()
    return answer(body).replace(b"text/plain", b"application/health+json")


def test_the_checks_of_a_server_are_told_one_by_one(bench: Bench) -> None:
    with served(HealthApp(shop(), authorize=Token(TOKEN))) as port:
        run = bench.run("watch", "--count=1", f"http://127.0.0.1:{port}")
        named = told(run.out)
        run = bench.run("watch", "--count=1", *WITH_TOKEN, f"http://127.0.0.1:{port}")
    assert run.code == 0
    assert named == [
        "DEGRADED  release v42",
        "DEGRADED  disk: degraded",
        "FAILED    search: failed (not critical)",
    ]
    assert told(run.out)[1:] == [
        "DEGRADED  disk: 95 % full",
        "FAILED    search: circuit_open: OSError: away (not critical)",
    ]


def test_who_may_see_no_checks_sees_the_verdict(bench: Bench) -> None:
    app = HealthApp(shop(), authorize=Token(TOKEN), show="summary")
    with served(app) as port:
        run = bench.run("watch", "--count=1", f"http://127.0.0.1:{port}")
    assert told(run.out) == ["DEGRADED  200 OKAY (degraded), release v42"]


def test_json_has_the_breaker_and_the_release(bench: Bench) -> None:
    with served(HealthApp(shop(), authorize=Token(TOKEN))) as port:
        url = f"http://127.0.0.1:{port}"
        run = bench.run("watch", "--count=1", "--json", *WITH_TOKEN, url)
    whole, disk, search = map(json.loads, run.out.splitlines())
    assert (whole["release"], whole["breaker"]) == ("v42", None)
    assert (disk["target"], disk["breaker"]) == (f"{url}/health_check disk", None)
    assert (search["verdict"], search["breaker"]) == ("failed", "open")


def test_strict_and_the_exit_status(bench: Bench) -> None:
    with served(HealthApp(shop())) as port:
        url = f"http://127.0.0.1:{port}"
        assert bench.run("watch", "--count=1", "--strict", url).code == 1
        assert bench.run("watch", "--count=1", "--group=release", url).code == 1
        assert bench.run("watch", "--count=1", "--group=live", url).code == 0


def test_an_expected_body_is_asked_for_as_ever(bench: Bench) -> None:
    seen: list[bytes] = []

    def reply(request: bytes) -> bytes:
        seen.append(request)
        return answer(b"fine")

    with answering(reply) as place:
        assert bench.run("watch", "--count=1", "--expect=fine", f"http://{place}").code == 0
        assert bench.run("watch", "--count=1", "--any-body", f"http://{place}").code == 0
        assert bench.run("watch", "--count=1", f"http://{place}").code == 1
    asked = [re.findall(rb"Accept: ([^,]+),", request)[0] for request in seen]
    assert asked == [b"text/plain", b"text/plain", b"application/health+json"]


def test_verbose_has_the_checks_of_a_server(bench: Bench) -> None:
    with served(HealthApp(shop(), authorize=Token(TOKEN))) as port:
        url = f"http://127.0.0.1:{port}"
        run = bench.run("check", "--verbose", *WITH_TOKEN, url)
        plain = bench.run("check", *WITH_TOKEN, url)
    verdict, disk, search = run.out.splitlines()
    assert verdict.startswith(f"DEGRADED  {url}/health_check: 200 OKAY (degraded), in ")
    assert re.fullmatch(r"  \[~\] disk degraded \(\d+ ms\): 95 % full", disk)
    assert re.fullmatch(r"  \[-\] search failed \(\d+ ms, not critical\): OSError: away", search)
    assert "search" not in plain.out


def test_a_server_that_is_not_healthmw_s(bench: Bench) -> None:
    said = document(
        checks={
            "cassandra:responseTime": [{"status": "pass", "observedValue": 250}, {}],
            "uptime": [{"status": "warn", "output": "short"}],
            "queue": [{"status": "down"}],
        }
    )
    with answering(said) as place:
        run = bench.run("watch", "--count=1", f"http://{place}")
    assert told(run.out) == [
        "OKAY",
        "OKAY      cassandra: okay",
        "DEGRADED  uptime: short",
        "FAILED    queue: failed",
    ]


@pytest.mark.parametrize(
    "reply",
    [
        document(checks=[]),
        document(checks={"a": None, "b": [], "c": [7], "d": {}}, healthmw=7),
        document(releaseId=7, output=["x"], healthmw={"status": 7, "reason": {}}),
    ],
)
def test_members_that_are_not_what_they_should_be_are_passed_over(
    bench: Bench, reply: bytes
) -> None:
    with answering(reply) as place:
        run = bench.run("watch", "--count=1", f"http://{place}")
    assert (run.code, told(run.out)) == (0, ["OKAY      200 OKAY"])


def test_values_that_are_not_what_they_should_be_are_not_shown(bench: Bench) -> None:
    odd = {
        "durationSeconds": 10**400,
        "ageSeconds": True,
        "breaker": "open",
        "lastChange": "yesterday",
        "history": {"recentSeconds": [-1, "x", 1e999]},
    }
    entry = {"status": ["fail"], "output": "\x1b[2Jaway\n", "healthmw": odd}
    reply = document(checks={"disk:responseTime": [entry], "disk:free": [entry]}, healthmw={"x": 1})
    with answering(reply) as place:
        run = bench.run("check", "--verbose", "--json", f"http://{place}")
    (found,) = run.json["targets"]
    assert found["report"]["checks"] == {
        "disk": {
            "status": "unknown",
            "reason": "unknown",
            "critical": True,
            "detail": "away",
            "seconds": None,
            "age_seconds": None,
            "breaker": None,
            "last_change": None,
            "recent_seconds": [],
        }
    }


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"{}", b'{"status": []}', b'{"status": "fine"}', b"[" * 200_000]
)
def test_what_is_no_such_document_is_not_well(bench: Bench, body: bytes) -> None:
    reply = answer(body).replace(b"text/plain", b"application/health+json")
    with answering(reply) as place:
        run = bench.run("watch", "--count=1", f"http://{place}")
    assert run.code == 1
    assert "200, but the body is '" in run.out


def test_a_document_that_says_fail_is_not_well_whatever_its_code(bench: Bench) -> None:
    with answering(document(status="fail", output="disk: full")) as place:
        run = bench.run("watch", "--count=1", f"http://{place}")
    assert (run.code, told(run.out)) == (1, ["FAILED    200 disk: full"])


def test_hundreds_of_checks_are_read(bench: Bench) -> None:
    health = Health()
    for number in range(500):
        health.add(f"check-{number}", lambda: None)
    with served(HealthApp(health, authorize=lambda caller: True)) as port:
        run = bench.run("watch", "--count=1", f"http://127.0.0.1:{port}")
    assert run.code == 0
    assert len(run.out.splitlines()) == 501
