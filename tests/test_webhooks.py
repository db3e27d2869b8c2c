"""Notices by webhook: what is sent, once a problem and once its end, until it has arrived."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import stamina
from standardwebhooks.webhooks import Webhook as Receiver
from standardwebhooks.webhooks import WebhookVerificationError

from healthmw import Degraded, Health
from healthmw.exceptions import ProbeFailedError
from healthmw.testing import ScriptedProbe
from healthmw.webhooks import (
    OpsgenieWebhook,
    PagerDutyWebhook,
    SlackWebhook,
    TeamsWebhook,
    Webhook,
)
from tests.broken_log import broken_log
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BROKEN = ProbeFailedError("no such table <orders> & more")
SECRET = "whsec_" + base64.b64encode(b"cAnArY-of-the-webhook").decode()


class Notice(NamedTuple):
    path: str
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


class Service:
    """A service that takes notices, and answers as it is told to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.got: list[Notice] = []
        self.answers: deque[tuple[int, dict[str, str]]] = deque()

    def wait_for(self, number: int) -> list[Notice]:
        until_sync(lambda: len(self.got) >= number)
        return self.got


@contextmanager
def _serving() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            # Before it is answered, or who has its answer might find nothing here.
            service.got.append(Notice(self.path, dict(self.headers.items()), content))
            status, headers = service.answers.popleft() if service.answers else (200, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service = Service(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(name="service")
def _service() -> Iterator[Service]:
    with _serving() as found:
        yield found


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=6):  # tries as often, and waits for nothing
        yield


class Shop:
    def __init__(
        self, listener: Callable[[Any], None], *, critical: bool = True, release: str = "v42"
    ) -> None:
        self.probe = ScriptedProbe()
        self.health = Health(release=release, max_age=0)
        self.health.add("database", self.probe, critical=critical)
        self.health.subscribe(listener)

    def sees(self, *outcomes: object) -> None:
        for outcome in outcomes:
            self.probe.play(outcome)  # type: ignore[arg-type]
            self.health.run_sync()


def test_a_problem_is_told_once_and_so_is_its_end(service: Service) -> None:
    shop = Shop(Webhook(f"{service.url}/hook?key=1", service="shop", headers={"X-Team": "web"}))
    shop.sees(None, None, BROKEN, TimeoutError(), BROKEN, Degraded("slow"), None, BROKEN, None)
    got = service.wait_for(4)
    assert [notice.body["resolved"] for notice in got] == [False, True, False, True]
    first = got[0]
    assert first.path == "/hook?key=1"
    assert first.headers["Content-Type"] == "application/json"
    assert first.headers["X-Team"] == "web"
    body = first.body
    assert body.pop("when").endswith("+00:00")
    assert body.pop("instance")
    assert body == {
        "service": "shop",
        "check": "database",
        "resolved": False,
        "old": "okay",
        "new": "failed",
        "reason": "failed",
        "critical": True,
        "detail": "no such table <orders> & more",
        "ready": "failed",
        "release": "v42",
        "key": "healthmw/shop/database",
    }
    assert (got[1].body["new"], got[1].body["ready"]) == ("degraded", "degraded")


def test_degraded_is_a_problem_where_that_is_wanted(service: Service) -> None:
    shop = Shop(Webhook(service.url, service="shop", degraded=True))
    shop.sees(None, Degraded("slow"), BROKEN, Degraded("slow"), None)
    got = service.wait_for(2)
    assert [(n.body["new"], n.body["resolved"]) for n in got] == [
        ("degraded", False),
        ("okay", True),
    ]


def test_draining_is_no_news(service: Service) -> None:
    shop = Shop(Webhook(service.url, service="shop"))
    shop.sees(None)
    shop.health.drain()
    shop.probe.play(BROKEN)
    shop.health.run_sync("database")
    (notice,) = service.wait_for(1)
    assert notice.body["check"] == "database"


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_")])
def test_a_signed_notice_is_what_the_receivers_own_library_verifies(
    service: Service, secret: str
) -> None:
    service.answers.extend([(503, {}), (200, {})])
    shop = Shop(Webhook(service.url, service="shop", secret=secret))
    shop.sees(BROKEN)
    again, arrived = service.wait_for(2)
    receiver = Receiver(SECRET)
    headers = {name.lower(): value for name, value in arrived.headers.items()}
    assert receiver.verify(arrived.content.decode(), headers)["check"] == "database"
    with pytest.raises(WebhookVerificationError):
        receiver.verify(arrived.content.decode().replace("database", "cache"), headers)
    assert again.headers["webhook-id"] == arrived.headers["webhook-id"]  # so it is known again


@pytest.mark.parametrize(
    "answer", [(500, {}), (503, {"Retry-After": "1"}), (429, {"Retry-After": "soon"})]
)
def test_it_is_sent_again_until_it_has_arrived(
    service: Service, answer: tuple[int, dict[str, str]]
) -> None:
    service.answers.extend([answer] * 3)
    shop = Shop(Webhook(service.url, service="shop"))
    shop.sees(BROKEN)
    got = service.wait_for(4)
    assert len({notice.content for notice in got}) == 1


@pytest.mark.parametrize("answer", [(503, {}), (503, {"Retry-After": "1"})])
def test_it_outlasts_half_an_hour_without_the_service(
    service: Service, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, dict[str, str]]
) -> None:
    stamina.set_testing(False)
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=pauses.append))
    service.answers.extend([answer] * 34)
    shop = Shop(Webhook(service.url, service="shop"))
    shop.sees(BROKEN)
    service.wait_for(35)
    assert 1 <= pauses[0] <= 2
    assert sum(pauses[:6]) > 60
    assert max(pauses) == 60
    assert sum(pauses) > 1700


def test_a_service_that_says_when_is_not_asked_before(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamina.set_testing(False)
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=pauses.append))
    service.answers.extend([(429, {"Retry-After": "30"}), (503, {"Retry-After": "3600"})])
    shop = Shop(Webhook(service.url, service="shop"))
    shop.sees(BROKEN)
    service.wait_for(3)
    assert pauses == [30, 60]


def test_what_could_not_be_told_is_told_with_the_next_change(service: Service) -> None:
    service.answers.extend([(500, {})] * 6)
    shop = Shop(Webhook(service.url, service="shop", degraded=True))
    shop.sees(BROKEN, Degraded("slow"), BROKEN, None)
    got = [notice.body for notice in service.wait_for(8)][5:]
    assert [(body["new"], body["resolved"]) for body in got] == [
        ("failed", False),
        ("degraded", False),
        ("okay", True),
    ]


def test_the_end_is_told_even_if_nobody_is_known_to_have_heard_of_the_problem(
    service: Service,
) -> None:
    service.answers.append((404, {}))
    shop = Shop(Webhook(service.url, service="shop"))
    shop.sees(BROKEN, None, BROKEN)
    got = service.wait_for(3)
    assert [notice.body["resolved"] for notice in got] == [False, True, False]


def test_that_it_is_sent_again_is_logged_once(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.answers.extend([(503, {})] * 3)
    shop = Shop(SlackWebhook(f"{service.url}/cAnArY", service="shop"))
    shop.sees(BROKEN)
    service.wait_for(4)
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert said == ["notice of database: 127.0.0.1 answered 503; it is sent again"]
    assert not [r for r in caplog.records if r.name == "stamina"]
    assert "cAnArY" not in caplog.text


def test_a_log_that_breaks_down_keeps_no_notice_from_being_sent_again(
    service: Service, breakdowns: list[BaseException]
) -> None:
    service.answers.extend([(503, {})] * 2)
    shop = Shop(SlackWebhook(service.url, service="shop"))
    with broken_log():
        shop.sees(BROKEN)
        service.wait_for(3)
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


def _said(caplog: pytest.LogCaptureFixture) -> str:
    def found() -> list[str]:
        return [text for r in caplog.records if (text := r.getMessage()).startswith("listener")]

    until_sync(found)
    (text,) = found()
    return text


@pytest.mark.parametrize(
    ("status", "times", "said"),
    [(404, 1, "answered 404"), (301, 1, "answered 301"), (500, 6, "answered 500")],
)
def test_who_refuses_it_for_good_is_named_and_the_url_is_not(
    service: Service, caplog: pytest.LogCaptureFixture, status: int, times: int, said: str
) -> None:
    caplog.set_level(logging.DEBUG)
    service.answers.extend([(status, {"Location": f"{service.url}/elsewhere"})] * 6)
    shop = Shop(SlackWebhook(f"{service.url}/services/cAnArY", service="shop"))
    shop.sees(BROKEN)
    assert said in _said(caplog)
    assert len(service.got) == times
    assert "cAnArY" not in caplog.text


def test_who_cannot_be_reached_is_named_and_the_url_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with _serving() as gone:
        pass
    shop = Shop(Webhook(f"{gone.url}/cAnArY", service="shop"))
    shop.sees(BROKEN)
    assert "127.0.0.1 can't be reached: ConnectError" in _said(caplog)
    assert "cAnArY" not in caplog.text


def test_slack(service: Service) -> None:
    shop = Shop(SlackWebhook(service.url, service="R&D shop"))
    shop.sees(BROKEN, None)
    problem, end = (notice.body["text"].split("\n") for notice in service.wait_for(2))
    assert problem[0] == ":red_circle: *R&amp;D shop: check database is failed (failed)*"
    assert problem[1] == "ready: failed"
    assert problem[3:] == ["release: v42", "detail: no such table &lt;orders&gt; &amp; more"]
    assert end[0] == ":large_green_circle: *R&amp;D shop: check database is well again*"


def test_a_release_without_a_name_is_left_out(service: Service) -> None:
    shop = Shop(SlackWebhook(service.url, service="shop"), release="")
    shop.sees(BROKEN)
    (problem,) = service.wait_for(1)
    assert "release" not in problem.body["text"]


def test_teams(service: Service) -> None:
    shop = Shop(TeamsWebhook(service.url, service="shop"))
    shop.sees(BROKEN, None)
    problem, end = (n.body["attachments"][0]["content"]["body"] for n in service.wait_for(2))
    assert problem[0]["text"] == "shop: check database is failed (failed)"
    assert problem[0]["color"] == "Attention"
    assert {"title": "release", "value": "v42"} in problem[1]["facts"]
    assert (end[0]["text"], end[0]["color"]) == ("shop: check database is well again", "Good")


@pytest.mark.parametrize(("critical", "severity"), [(True, "critical"), (False, "warning")])
def test_pagerduty_has_one_incident_and_its_end(
    service: Service, critical: bool, severity: str
) -> None:
    pager = PagerDutyWebhook("cAnArY", service="shop", url=service.url)
    assert "cAnArY" not in repr(pager)
    Shop(pager, critical=critical).sees(BROKEN, None)
    trigger, resolve = (notice.body for notice in service.wait_for(2))
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert trigger["dedup_key"] == resolve["dedup_key"] == "healthmw/shop/database"
    assert trigger["routing_key"] == resolve["routing_key"] == "cAnArY"
    payload = trigger["payload"]
    assert payload["summary"] == "shop: check database is failed (failed)"
    assert payload["severity"] == severity
    assert payload["custom_details"]["detail"] == "no such table <orders> & more"


@pytest.mark.parametrize(("critical", "priority"), [(True, "P1"), (False, "P3")])
def test_opsgenie_has_one_alert_and_its_end(
    service: Service, critical: bool, priority: str
) -> None:
    listener = OpsgenieWebhook("cAnArY", service="shop", url=f"{service.url}/v2/alerts")
    assert "cAnArY" not in repr(listener)
    Shop(listener, critical=critical).sees(BROKEN, None)
    opened, closed = service.wait_for(2)
    assert opened.headers["Authorization"] == closed.headers["Authorization"] == "GenieKey cAnArY"
    assert (opened.body["alias"], opened.body["priority"]) == ("healthmw/shop/database", priority)
    assert closed.path == "/v2/alerts/healthmw%2Fshop%2Fdatabase/close?identifierType=alias"


def webhook(**options: Any) -> Webhook:
    return Webhook(**{"url": "https://host", "service": "shop", **options})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Webhook("db:5432", service="shop"), "url must be"),
        (lambda: Webhook("ftp://host/x", service="shop"), "url must be"),
        (lambda: Webhook("http://host", service=""), "service must name"),
        (lambda: Webhook("http://host", service="shop", timeout=0), "timeout=0 must be"),
        (lambda: Webhook("http://host", service="shop", secret="cAnArY!"), "secret must be base64"),
        (lambda: Webhook("http://host", service="shop", secret=""), "secret must be base64"),
        (lambda: PagerDutyWebhook("", service="shop"), "routing_key must be"),
        (lambda: OpsgenieWebhook("", service="shop"), "api_key must be"),
        # As they are read from a file, or from the wrong place.
        (lambda: SlackWebhook("https://host/cAnArY\n", service="shop"), "url must be"),
        (lambda: TeamsWebhook(" https://host/cAnArY", service="shop"), "url must be"),
        (lambda: Webhook("https://host:99999/cAnArY", service="shop"), "url must be"),
        (lambda: Webhook("https://[host/cAnArY", service="shop"), "url must be"),
        (lambda: PagerDutyWebhook("cAnArY\n", service="shop"), "routing_key must be"),
        (lambda: OpsgenieWebhook("cAnArY\n", service="shop"), "api_key must be"),
        (lambda: webhook(headers={"X-Key": "cAnArY\n"}), "headers: the value of 'X-Key'"),
        (lambda: webhook(headers={"X-Key": "cAnArY ü"}), "headers: the value of 'X-Key'"),
        (lambda: webhook(headers={"X Key": "cAnArY"}), "headers='X Key' can't be"),
        # Of other types.
        (lambda: webhook(url=5), "url must be a str, not int"),
        (lambda: webhook(service=5), "service must be a str, not int"),
        (lambda: webhook(degraded="no"), "degraded must be True or False"),
        (lambda: webhook(secret=b"abcd"), "secret must be a str, not bytes"),
        (lambda: webhook(headers={"X-Key": 1}), "headers: the value of 'X-Key'"),
        (lambda: webhook(headers={1: "cAnArY"}), "headers must be a str, not int"),
        (lambda: webhook(headers="X-Key: cAnArY"), "headers must be a mapping, not str"),
    ],
)
def test_bad_options_are_named_and_not_shown(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as info:
        make()
    assert "cAnArY" not in str(info.value)


def test_a_key_may_be_of_all_that_is_visible() -> None:
    PagerDutyWebhook("!~", service="shop")


def test_a_url_is_not_in_the_repr() -> None:
    assert repr(Webhook("https://hooks.example/cAnArY", service="shop")) == (
        "<Webhook hooks.example for shop>"
    )
