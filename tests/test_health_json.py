"""The answer as application/health+json, held against its schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError

from healthmw import CircuitBreaker, Degraded, Health, Reason, Status
from healthmw.testing import ScriptedProbe
from tests.states import STATES, broken, failing, healthy, open_circuit, weak, well
from tests.transports import TRANSPORTS

SCHEMA = json.loads(
    (Path(__file__).parent.parent / "docs" / "health-schema.json").read_text(encoding="utf-8")
)
WSGI = TRANSPORTS["wsgi"]


def checked(document: Any) -> dict[str, Any]:
    Draft202012Validator(SCHEMA, format_checker=FormatChecker()).validate(document)
    assert isinstance(document, dict)
    return document


def answer_of(health: Health, path: str = "", level: str = "full") -> dict[str, Any]:
    app = WSGI.middleware(health, show=level)
    answer = WSGI.ask(app, f"/health_check{path}", query="format=json")
    assert answer.body.isascii()
    return checked(json.loads(answer.body))


def first(document: dict[str, Any], check: str) -> dict[str, Any]:
    (found,) = document["checks"][f"{check}:responseTime"]
    assert isinstance(found, dict)
    return found


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(ValidationError):
        checked({"status": "well"})


def test_the_schema_knows_every_word() -> None:
    assert SCHEMA["$defs"]["status"]["enum"] == [str(status) for status in Status]
    assert set(SCHEMA["$defs"]["reason"]["enum"]) == {str(reason) for reason in Reason}


@pytest.mark.parametrize("level", ["summary", "names", "full"])
@pytest.mark.parametrize("path", ["", "/release", "/live", "/startup", "/cache"])
@pytest.mark.parametrize("state", STATES)
def test_every_state_fits_the_schema(state: str, path: str, level: str) -> None:
    if (state, path) == ("empty", "/cache") or (level, path) == ("summary", "/cache"):
        return
    answer_of(STATES[state](), path, level)


def test_the_drafts_members_are_filled() -> None:
    health = failing(
        service="shop", version="2", description="The shop", links={"about": "https://shop.example"}
    )

    document = answer_of(health)

    assert document["status"] == "fail"
    assert document["version"] == "2"
    assert document["releaseId"] == "v42"
    assert document["serviceId"] == "shop"
    assert document["description"] == "The shop"
    assert document["links"] == {"about": "https://shop.example"}
    assert document["output"].startswith("search: OSError: private-detail")
    assert "mail" not in document["output"]  # it is not critical
    assert {key.partition(":")[0] for key in document["checks"]} == set(health.checks)
    search = first(document, "search")
    assert search["componentId"] == "search"
    assert search["componentType"] == "component"
    assert search["status"] == "fail"
    assert search["observedUnit"] == "ms"
    assert search["observedValue"] >= 1
    assert search["output"].startswith("OSError: private-detail")
    assert search["time"].endswith("Z")
    assert first(document, "queue")["status"] == "warn"
    assert "output" not in first(document, "database")


def test_measurements_have_keys_of_their_own() -> None:
    document = answer_of(failing())

    assert document["checks"]["queue:lag_seconds"] == [
        {
            "componentId": "queue",
            "observedValue": 1.5,
            "observedUnit": "s",
            "status": "warn",
            "time": first(document, "queue")["time"],
        }
    ]
    assert document["checks"]["database:used_bytes"][0]["observedUnit"] == "bytes"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        pytest.param(10**5000, "out of range", id="more digits than Python writes"),
        (-(10**30), "out of range"),
        (True, True),
        (0, 0),
        ("\ud800 \x1b[31m\n\x00 red", "[31m red"),
        ("ä" * 1000, "ä" * 200),
    ],
)
def test_no_measurement_breaks_the_document(value: Any, shown: Any) -> None:
    health = Health()
    health.add("odd", lambda: {"a:b": value})

    document = answer_of(health)

    assert document["checks"]["odd:a_b"][0]["observedValue"] == shown
    for form in ("html", "text&verbose", "openmetrics"):
        app = WSGI.middleware(health, show="full")
        assert WSGI.ask(app, query=f"format={form}").status == 200


def test_a_measurement_named_like_our_own_stands_beside_it() -> None:
    health = Health()
    health.add("odd", lambda: {"responseTime": 3})

    ours, theirs = answer_of(health)["checks"]["odd:responseTime"]

    assert "healthmw" in ours
    assert theirs["observedValue"] == 3


def test_a_multitude_of_measurements_is_cut() -> None:
    health = Health()
    health.add("odd", lambda: {f"m{number}": number for number in range(60)})

    assert len(answer_of(health)["checks"]) == 17


def test_a_long_detail_is_cut() -> None:
    health = Health()
    health.add("odd", lambda: Degraded("long " * 5000))

    assert len(first(answer_of(health), "odd")["output"]) <= 1000


def test_our_own_members_tell_the_past() -> None:
    now = [1000.0]
    fails = [False]

    def probe() -> None:
        if fails[0]:
            raise OSError("down")

    health = Health(max_age=0, clock=lambda: now[0])
    health.add("search", probe, groups=["live"], description="The index", failure_threshold=2)
    for step in (False, False, True, True, False):
        fails[0] = step
        health.run_sync()
        now[0] += 5

    ours = first(answer_of(health), "search")["healthmw"]

    assert (ours["status"], ours["reason"], ours["raw"]) == ("okay", "okay", "okay")
    assert ours["critical"] is True
    assert ours["groups"] == ["live"]
    assert ours["description"] == "The index"
    assert ours["ageSeconds"] == 0  # the answer itself had it run
    history = ours["history"]
    assert history["runs"] == 6
    assert history["failures"] == {"failed": 2}
    assert history["changes"] == history["flapsLastHour"] == 2
    assert [(c["from"], c["to"], c["reason"]) for c in history["lastChanges"]] == [
        ("okay", "failed", "failed"),
        ("failed", "okay", "okay"),
    ]
    assert ours["lastChange"] == history["lastChanges"][-1]["time"]
    assert len(history["recentSeconds"]) == 6


def test_an_open_circuit_is_told() -> None:
    health = open_circuit()
    payments = first(answer_of(health), "payments")

    breaker = payments["healthmw"]["breaker"]
    assert breaker["state"] == "open"
    assert 30 <= breaker["retryAfterSeconds"] <= 60
    assert breaker["opened"] == 1
    assert breaker["transitions"] == {"open": 1}
    assert payments["healthmw"]["reason"] == "circuit_open"
    assert first(answer_of(health), "cache")["healthmw"]["breaker"]["state"] == "closed"


def test_a_probe_may_say_what_it_tests() -> None:
    class Probe:
        component_type = "datastore"

        def __call__(self) -> None: ...

    class Odd(Probe):
        component_type = "<b>"

    class Unset:
        @property
        def component_type(self) -> str:
            raise RuntimeError("not configured")

        def __call__(self) -> None: ...

    health = Health()
    health.add("database", Probe())
    health.add("odd", Odd())
    health.add("unset", Unset())
    document = answer_of(health)

    assert first(document, "database")["componentType"] == "datastore"
    assert first(document, "odd")["componentType"] == "component"
    assert first(document, "unset")["componentType"] == "component"


def test_names_have_names_and_reasons_and_nothing_else() -> None:
    document = answer_of(failing(service="shop"), level="names")

    assert document.keys() == {
        "status", "releaseId", "serviceId", "output", "checks", "healthmw"
    }  # fmt: skip
    assert document["output"] == "search: failed"
    assert document["checks"].keys() == {
        f"{name}:responseTime" for name in ("database", "cache", "queue", "mail", "search")
    }
    assert first(document, "mail") == {
        "componentId": "mail",
        "status": "fail",
        "healthmw": {"status": "failed", "reason": "failed", "critical": False},
    }


def test_summary_has_the_verdict_and_nothing_else() -> None:
    assert answer_of(failing(service="shop"), level="summary") == {
        "status": "fail",
        "releaseId": "v42",
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("service", b"shop"),
        ("version", 2),
        ("description", None),
        ("links", ["https://shop.example"]),
        ("links", {"about": 1}),
    ],
)
def test_what_the_app_says_of_itself_is_text(option: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{option} must"):
        Health(**{option: value})


def test_a_group_that_fails_what_is_degraded_says_fail() -> None:
    health = healthy()
    health.add("queue", weak)

    assert answer_of(health)["status"] == "warn"
    assert answer_of(health, "/release")["status"] == "fail"
    assert answer_of(health, "/release")["healthmw"]["status"] == "degraded"


def test_notes_say_what_holds_for_all() -> None:
    health = Health()
    assert answer_of(health)["notes"] == ["no check is registered"]
    assert answer_of(health)["output"] == "no check is registered"
    health.add("cache", well, breaker=CircuitBreaker())
    health.drain()
    document = answer_of(health)
    assert document["notes"] == ["draining: this process is about to stop"]
    assert document["output"] == "draining: this process is about to stop"


class Needy(ScriptedProbe):
    """A probe that says what it needs."""

    def __init__(self, *needs: str, error: Exception | None = None) -> None:
        super().__init__()
        self._needs = needs
        self._error = error

    @property
    def needs(self) -> tuple[str, ...]:
        if self._error is not None:
            raise self._error
        return self._needs


def release(*needs: str, checks: tuple[str, ...] = ("database",)) -> Health:
    health = Health()
    for check in checks:
        health.add(check, ScriptedProbe())
    health.add("schema", Needy(*needs), groups=["release"])
    return health


def test_output_names_the_only_check_where_it_is_not_critical() -> None:
    health = Health()
    health.add("mail", broken, critical=False)

    answer = answer_of(health)
    assert answer["status"] == "warn"
    assert answer["output"].startswith("mail: OSError")


def test_the_authorised_see_what_the_running_code_needs() -> None:
    old, new = (answer_of(release(need))["healthmw"] for need in ("shop.0001", "shop.0002"))
    assert old["needs"] == ["database", "schema", "schema: shop.0001"]
    assert old["fingerprint"] != new["fingerprint"]
    assert answer_of(release("shop.0001"), "/live")["healthmw"] == old | {
        "group": "live",
        "status": "okay",
    }


def test_a_check_more_is_a_need_more() -> None:
    few, more = release("a"), release("a", checks=("database", "search"))
    fingerprints = {answer_of(health)["healthmw"]["fingerprint"] for health in (few, more)}
    assert len(fingerprints) == 2


def test_the_order_of_what_is_needed_is_of_no_account() -> None:
    one, other = release("b", "a"), release("a", "b")
    assert answer_of(one)["healthmw"]["fingerprint"] == answer_of(other)["healthmw"]["fingerprint"]


@pytest.mark.parametrize(("level", "shown"), [("full", True), ("names", False), ("summary", False)])
def test_the_authorised_see_which_process_answers(
    monkeypatch: pytest.MonkeyPatch, level: str, *, shown: bool
) -> None:
    monkeypatch.setenv("DYNO", "web.3")
    app = WSGI.middleware(healthy(), show=level)

    for form in ("json", "html"):
        body = WSGI.ask(app, query=f"format={form}").body.decode()
        assert (f"web.3:{os.getpid()}" in body) is shown


@pytest.mark.parametrize("level", ["summary", "names"])
def test_others_do_not_see_what_the_running_code_needs(level: str) -> None:
    found = answer_of(release("shop.0001"), level=level).get("healthmw", {})
    assert found.keys() <= {"group", "status", "level"}


def test_needs_that_can_not_be_told_and_needs_without_end_do_no_harm() -> None:
    health = Health()
    health.add("broken", Needy(error=OSError("cAnArY")))
    health.add("many", Needy(*(f"{n}\n" * 300 for n in range(300))))
    needs = answer_of(health)["healthmw"]["needs"]
    assert needs[:2] == ["broken", "broken: OSError"]
    assert len(needs) == 200
    assert all(need.isprintable() for need in needs)
