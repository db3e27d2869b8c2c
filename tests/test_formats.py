"""In what form the endpoint answers, and that every form says the same."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from healthmw import CircuitBreaker, Health
from tests.states import STATES, broken, failing, healthy, open_circuit, well
from tests.transports import TRANSPORTS, Answer, Transport

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = "text/plain; charset=utf-8"
JSON = "application/health+json"
HTML = "text/html; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OPENMETRICS_DRAFT = "application/openmetrics-text; version=0.0.1; charset=utf-8"

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
    "q=0.8,application/signed-exchange;v=b3;q=0.7"
)
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)

FORMATS = ("text", "json", "health+json", "html", "prometheus", "openmetrics")
METRICS = ("prometheus", "openmetrics")


@pytest.fixture(params=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> Transport:
    return TRANSPORTS[request.param]


def kind_for(accept: str) -> str:
    transport = TRANSPORTS["wsgi"]
    answer = transport.ask(transport.middleware(healthy()), headers={"Accept": accept})
    assert answer.status == 200
    assert answer["vary"] == "Accept"
    return answer["content-type"]


# Negotiation


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", TEXT),
        ("", TEXT),
        ("text/plain", TEXT),
        ("text/plain; charset=utf-8", TEXT),
        ("text/*", TEXT),
        ("TEXT/PLAIN", TEXT),
        ("application/health+json", JSON),
        ("application/json", JSON),
        ("application/*", JSON),
        ("application/json, text/plain, */*", JSON),  # axios
        ("application/json;q=0.1, text/plain;q=0.2", TEXT),
        ("application/json;q=0.2, */*;q=0.1", JSON),
        ("*/*, application/json", JSON),
        ("*/*;q=0.9, application/json;q=0.1", TEXT),
        ("text/html", HTML),
        (CHROME, HTML),
        ("text/html, application/json", HTML),
        ("application/json, text/html", JSON),
        ("*/*, text/plain;q=0", HTML),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", OPENMETRICS_DRAFT),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4", OPENMETRICS_DRAFT),
        ("text/plain;version=0.0.4", PROMETHEUS),
        ('text/plain;version="0.0.4"', PROMETHEUS),
        ("text/plain;version=0.0.4;q=0.2, */*;q=0.1", PROMETHEUS),
        # What isn't to be had: text, not 406.
        ("image/png", TEXT),
        ("application/xml", TEXT),
        ("text/plain;version=9", TEXT),
        ("application/json;q=0", TEXT),
        ("*/*;q=0", TEXT),
        ("application/json;q=nonsense", TEXT),
        ("application/json;q=nan", TEXT),
        ("application/json;q=-1", TEXT),
        ("application/json;q=inf", JSON),
        (",;,;=;q=;", TEXT),
        ("text", TEXT),
        ("/", TEXT),
        ("\xff\xfe", TEXT),
        # Only so much of it is read.
        ("x/y," * 20 + "application/json", JSON),
        ("x/y," * 31 + "application/json", JSON),
        ("x/y," * 32 + "application/json", TEXT),
        ("a/" + "b" * 1100 + ",application/json", TEXT),
        ("application/json, a/" + "b" * 2000, JSON),
    ],
)
def test_accept_chooses_the_format(accept: str, kind: str) -> None:
    assert kind_for(accept) == kind
    assert kind_for(accept) == kind


def test_without_accept_it_is_text(transport: Transport) -> None:
    assert transport.ask(transport.middleware(healthy())).body == b"OKAY"


def test_accept_is_heard_through_each_transport(transport: Transport) -> None:
    app = transport.middleware(healthy())

    for accept, kind in ((CHROME, HTML), (PROMETHEUS_2, OPENMETRICS), ("application/json", JSON)):
        assert transport.ask(app, headers={"Accept": accept})["content-type"] == kind


def test_accept_headers_that_are_repeated_are_one() -> None:
    # WSGI servers have joined them already.
    transport = TRANSPORTS["asgi"]
    app = transport.middleware(healthy())
    headers = {"accept": "image/png", "Accept": "application/json"}

    assert transport.ask(app, headers=headers)["content-type"] == JSON


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("format=text", TEXT),
        ("format=json", JSON),
        ("format=health%2Bjson", JSON),
        ("format=health+json", JSON),
        ("format=html", HTML),
        ("format=prometheus", PROMETHEUS),
        ("format=openmetrics", OPENMETRICS),
        ("a=b&format=json&c", JSON),
        ("format=text&format=json", JSON),
        ("format=json&verbose", JSON),
        ("verbose", TEXT),
        ("verbose=0", HTML),
        ("", HTML),
        ("nonce=1", HTML),
        ("format=json&" + "a" * 2048, HTML),  # too long to be read
        ("&" * 100 + "format=json", HTML),
    ],
)
def test_the_query_outdoes_accept(transport: Transport, query: str, kind: str) -> None:
    app = transport.middleware(healthy())

    answer = transport.ask(app, query=query, headers={"Accept": CHROME})

    assert (answer.status, answer["content-type"]) == (200, kind)


@pytest.mark.parametrize("query", ["format=xml", "format=", "format=<script>", "format=JSON"])
def test_a_format_that_is_none_is_an_error(transport: Transport, query: str) -> None:
    answer = transport.ask(transport.middleware(healthy()), query=query)

    assert answer.status == 400
    assert answer.body == (
        b"There is no such format, only text, json, health+json, html, prometheus, openmetrics\n"
    )
    assert answer["content-type"] == TEXT


def test_what_many_make_up_does_not_fill_the_memory() -> None:
    transport = TRANSPORTS["wsgi"]
    app = transport.middleware(healthy())

    for number in range(600):
        assert transport.ask(app, query=f"nonce={number}").body == b"OKAY"
    assert transport.ask(app, query="format=json")["content-type"] == JSON
    assert len(app._endpoint._asked_by_all) <= 256  # it's the bound itself that is tested


# The same verdict in every format


def verdict_in(body: bytes, form: str, group: str) -> bool:
    """Return whether `body` says that all is well."""
    shown = body.decode()
    if form == "text":
        return shown == "OKAY"
    if "json" in form:
        return json.loads(shown)["status"] in {"pass", "warn"}
    if form == "html":
        found = re.search(r"<h1>.*</svg>(\w+).*</h1>", shown)
        assert found is not None
        return found[1] == "OKAY"
    return f'healthmw_group_passing{{group="{group}"}} 1\n' in shown


@pytest.mark.parametrize("path", ["", "/release", "/startup", "/live", "/cache"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("level", ["summary", "names", "full"])
def test_every_format_says_the_same(state: str, path: str, level: str) -> None:
    transport = TRANSPORTS["wsgi"]
    if (state, path) == ("empty", "/cache") or (level, path) == ("summary", "/cache"):
        return
    app = transport.middleware(STATES[state](), show=level)
    plain = transport.ask(app, f"/health_check{path}")

    for form in FORMATS:
        answer = transport.ask(app, f"/health_check{path}", query=f"format={form}")
        assert answer.status == (200 if form in METRICS else plain.status), form
        assert answer["health-status"] == plain["health-status"]
        assert answer["health-release"] == "v42"
        assert answer["content-length"] == str(len(answer.body))
        assert answer["vary"] == "Accept"
        assert answer["cache-control"] == "no-store"
        assert form == "text" or answer["x-content-type-options"] == "nosniff"
        group = path.removeprefix("/") or "ready"
        assert verdict_in(answer.body, form, group) is (plain.status == 200), (form, answer.body)


@pytest.mark.parametrize("form", [*FORMATS, "text&verbose", "html&refresh=0"])
@pytest.mark.parametrize("make", [healthy, failing])
def test_head_is_get_without_the_body(
    transport: Transport, make: Callable[[], Health], form: str
) -> None:
    app = transport.middleware(make(), show="names")
    get = transport.ask(app, query=f"format={form}")

    for _ in range(2):
        head = transport.ask(app, method="HEAD", query=f"format={form}")
        assert head.body == b""
        assert head.status == get.status
        # The page says when it was made.
        assert head["content-type"] == get["content-type"]
        assert {name for name, _ in head.headers} == {name for name, _ in get.headers}


def test_a_failing_app_can_be_scraped(transport: Transport) -> None:
    app = transport.middleware(failing())

    for headers in ({"Accept": PROMETHEUS_2}, {"Accept": PROMETHEUS_3}):
        answer = transport.ask(app, headers=headers)
        assert (answer.status, answer["health-status"]) == (200, "failed")
        assert b'healthmw_group_passing{group="ready"} 0\n' in answer.body
    assert transport.ask(app).status == 503


# What goes with it


def tagged(app: Any, transport: Transport, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return transport.ask(app, query="format=json", headers=named)


def test_a_poller_who_has_it_already_gets_304(transport: Transport) -> None:
    app = transport.middleware(healthy())
    first = tagged(app, transport)
    assert first.status == 200
    tag = first["etag"]

    for match in (tag, f"W/{tag}", f'"other", {tag}'):
        again = tagged(app, transport, If_None_Match=match)
        assert (again.status, again.body) == (304, b"")
        assert again["etag"] == tag
        assert again["health-status"] == "okay"
        assert again["vary"] == "Accept"
        assert "content-length" not in again
        assert "content-type" not in again
    for match in ('"other"', tag.strip('"'), "", "x" * 5000 + tag):
        assert tagged(app, transport, If_None_Match=match).status == 200


def test_what_has_changed_is_sent_again(transport: Transport) -> None:
    health = healthy(max_age=0)
    app = transport.middleware(health)
    tag = tagged(app, transport)["etag"]
    assert tagged(app, transport, If_None_Match=tag).status == 304

    health.add("search", broken)

    answer = tagged(app, transport, If_None_Match=tag)
    assert (answer.status, "etag" in answer) == (503, False)


def test_what_is_not_well_is_never_304(transport: Transport) -> None:
    app = transport.middleware(failing())

    answer = tagged(app, transport, If_None_Match="*")

    assert (answer.status, "etag" in answer) == (503, False)


def test_retry_after_says_when_an_open_circuit_is_tried(transport: Transport) -> None:
    app = transport.middleware(open_circuit())

    for form in ("text", "json", "html"):
        answer = transport.ask(app, query=f"format={form}")
        assert answer.status == 503
        assert 30 <= int(answer["retry-after"]) <= 60
    assert "retry-after" not in transport.ask(app, query="format=openmetrics")
    assert "retry-after" not in transport.ask(app, "/health_check/cache")


def test_retry_after_is_for_what_comes_back(transport: Transport) -> None:
    health = open_circuit()
    app = transport.middleware(health)
    health.drain()

    assert "retry-after" not in transport.ask(app)
    assert "retry-after" not in transport.ask(transport.middleware(failing()))
    harmless = healthy()
    breaker = CircuitBreaker(consecutive_failures=1, open_for=60)
    harmless.add("payments", broken, breaker=breaker, critical=False, max_age=0)
    assert "retry-after" not in transport.ask(transport.middleware(harmless))


def test_retry_after_is_for_what_is_at_fault(transport: Transport) -> None:
    health = Health()
    health.add("database", broken)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=60)
    health.add("payments", broken, breaker=breaker, critical=False, max_age=0)
    health.run_sync(fresh=True)
    app = transport.middleware(health)

    # That payments are tried again in a minute says nothing of the database.
    answer = transport.ask(app, query="verbose")
    assert (answer.status, "retry-after" in answer) == (503, False)
    assert b"circuit_open" in answer.body
    assert "retry-after" in transport.ask(app, "/health_check/payments")


def test_server_timing_is_for_the_authorised(transport: Transport) -> None:
    full = transport.ask(transport.middleware(healthy(), show="full"))
    names = transport.ask(transport.middleware(healthy()))

    assert re.fullmatch(r"\w+;dur=\d+\.\d, \w+;dur=\d+\.\d", full["server-timing"])
    assert "server-timing" not in names


# Served from memory


@pytest.mark.parametrize("form", [*FORMATS, "text&verbose"])
def test_an_answer_is_made_once_and_kept(transport: Transport, form: str) -> None:
    health = healthy(clock=lambda: 1000.0)
    app = transport.middleware(health, show="full")
    first = transport.ask(app, query=f"format={form}")

    # No history is asked for, and no clock moves: it is the same bytes.
    health.about = None  # type: ignore[assignment]  # who makes an answer now fails
    for _ in range(3):
        assert transport.ask(app, query=f"format={form}") == first


def test_ages_are_no_older_than_a_second(transport: Transport) -> None:
    now = [1000.0]
    app = transport.middleware(healthy(clock=lambda: now[0]), show="full")

    def age() -> float:
        shown = json.loads(transport.ask(app, query="format=json").body)
        seconds: float = shown["checks"]["database:responseTime"][0]["healthmw"]["ageSeconds"]
        return seconds

    assert age() == 0
    now[0] += 0.9
    assert age() == 0
    now[0] += 0.2
    assert age() == pytest.approx(1.1)


def test_levels_and_formats_do_not_get_each_others_answers(transport: Transport) -> None:
    health = failing()
    apps = [transport.middleware(health, show=show) for show in ("summary", "names", "full")]

    for _ in range(2):
        for app in apps:
            bodies = {transport.ask(app, query=f"format={form}").body for form in FORMATS}
            assert len(bodies) == len(FORMATS) - 1  # json and health+json are one
        assert len({transport.ask(app, query="format=json").body for app in apps}) == 3


def test_verbose_in_full_has_what_the_probe_said(transport: Transport) -> None:
    app = transport.middleware(failing(), show="full")

    body = transport.ask(app, query="verbose").body.decode()

    assert re.search(
        r"^\[-\] search failed \(\d+ ms\): OSError: private-detail-of-the-exc", body, re.MULTILINE
    )
    assert re.search(
        r"^\[~\] queue degraded \(\d+ ms\): private-detail-of-the-degr", body, re.MULTILINE
    )


def test_a_thousand_checks_are_shown_and_the_rest_is_counted(transport: Transport) -> None:
    health = Health(max_age=60)
    for number in range(1005):
        health.add(f"service-{number:04d}", well)
    health.add("last", broken)
    health.run_sync("last")
    for check in health.checks.values():
        check.max_age = 60
    app = transport.middleware(health)
    shown = json.loads(transport.ask(app, query="format=json").body)

    assert len(shown["checks"]) == 1000
    assert "last:responseTime" in shown["checks"]
    assert "6 checks are left out: there are too many" in shown["notes"]
    page = transport.ask(app, query="format=html").body.decode()
    assert "6 more checks are not shown" in page
    assert page.count('<li id="check-') == 1000
