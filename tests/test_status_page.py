"""The status page as a document. What a browser makes of it: tests/browser."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from html.parser import HTMLParser
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from healthmw import (
    CircuitBreaker,
    Degraded,
    DependencyUnavailable,
    Health,
    Reason,
    Report,
    Result,
    Status,
)
from healthmw._history import PastRun
from healthmw._sparkline import in_short, sparkline
from healthmw._view import Level, View
from healthmw.render import html
from tests.states import STATES, broken, degraded, failing, healthy, open_circuit, well
from tests.transports import TRANSPORTS, Answer
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable

WSGI = TRANSPORTS["wsgi"]
VOID = {"meta", "link", "path", "circle", "rect", "br"}


class Document(HTMLParser):
    """A page, read strictly: what is opened is closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(health: Health, path: str = "", level: str = "full", query: str = "") -> Document:
    app = WSGI.middleware(health, show=level)
    answer = WSGI.ask(app, f"/health_check{path}", query=f"format=html{query}")
    assert answer["content-type"] == "text/html; charset=utf-8"
    return Document(answer.body.decode())


@pytest.mark.parametrize("level", ["summary", "names", "full"])
@pytest.mark.parametrize("state", STATES)
def test_the_page_needs_nothing_else_and_runs_nothing(state: str, level: str) -> None:
    app = WSGI.middleware(STATES[state](), show=level)
    answer = WSGI.ask(app, query="format=html")
    page = answer.body.decode()
    document = Document(page)

    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    policy = answer["content-security-policy"]
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    for directive in ("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert directive in policy
    assert "unsafe" not in policy
    assert not [tag for tag, _ in document.tags if tag in {"script", "img", "iframe", "form"}]
    for _, attributes in document.tags:
        assert "style" not in attributes  # the policy forbids it
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "?", "data:image/svg+xml,"))
    assert "url(" not in style
    assert "@import" not in style
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for a in document.all("a") if (a["href"] or "").startswith("#")}
    assert targets <= {f"#{one}" for one in ids}
    assert document.all("html") == [{"lang": "en"}]
    assert len(document.all("h1")) == len(document.all("main")) == 1


def test_it_refreshes_itself_until_it_is_paused() -> None:
    app = WSGI.middleware(healthy())

    def ask(query: str) -> Answer:
        return WSGI.ask(app, query=query)

    running = ask("format=html")
    assert running["refresh"] == "5"
    assert b'<a href="?format=html&amp;refresh=0">Pause</a>' in running.body
    paused = ask("format=html&refresh=0")
    assert "refresh" not in paused
    assert b'<a href="?format=html">Resume</a>' in paused.body
    assert "refresh" not in ask("format=json")


@pytest.mark.parametrize(
    ("state", "path", "title", "lead"),
    [
        ("okay", "", "OKAY", "All 2 checks pass."),
        ("okay", "/cache", "OKAY", "The check passes."),
        ("okay", "/live", "OKAY", "The process answers; no check is in this group."),
        (
            "degraded",
            "",
            "OKAY, degraded",
            "2 of 4 checks need attention: mail (failed, not critical), queue (degraded).",
        ),
        (
            "degraded",
            "/release",
            "FAILED, degraded",
            "2 of 4 checks need attention: mail (failed, not critical), queue (degraded).",
        ),
        (
            "failing",
            "",
            "FAILED",
            (
                "3 of 5 checks need attention: search (failed), mail (failed, not critical), "
                "queue (degraded)."
            ),
        ),
        ("failing", "/search", "FAILED", "The check needs attention: search (failed)."),
        ("open circuit", "", "FAILED", "1 of 3 checks needs attention: payments (circuit open)."),
        ("unknown", "", "FAILED, unknown", "1 of 3 checks needs attention: search (never run)."),
        ("empty", "", "FAILED, unknown", "No check is registered, so nothing is known."),
        (
            "draining",
            "",
            "FAILED",
            "Draining: this process is about to stop and wants no new traffic.",
        ),
    ],
)
def test_the_verdict_and_what_is_amiss_come_first(
    state: str, path: str, title: str, lead: str
) -> None:
    for level in ("names", "full"):
        text = page_of(STATES[state](), path, level).text
        group = path.removeprefix("/") or "ready"
        # The title, the heading, and then what is amiss.
        assert text.startswith(f"{title}: {group} {title} {lead}"), text[:300]


def test_the_worst_comes_first() -> None:
    text = page_of(failing()).text

    places = [text.index(word) for word in ("Failed 2", "Degraded 1", "Passing 2")]
    assert places == sorted(places)
    assert text.index(" search Failed") < text.index(" mail Failed not critical")


def test_a_check_tells_its_past_to_who_may_see_it() -> None:
    now, fails = [1000.0], [False]

    def probe() -> None:
        if fails[0]:
            raise OSError("no route to host")

    health = Health(max_age=0, clock=lambda: now[0], service="shop", version="2")
    health.add("search", probe, description="The index", groups=["live"], failure_threshold=2)
    for step in (False, True, True, False, True, True):
        fails[0] = step
        health.run_sync()
    health.check("search").max_age = 3600
    now[0] += 125
    text = page_of(health).text

    assert text.startswith("FAILED: ready - shop FAILED")
    assert "OSError: no route to host" in text
    assert "What The index" in text
    assert "Failed for 2 min" in text
    assert re.search(r"Last result 2 min ago, took [\d.]+ m?s", text)
    assert "Runs 6, 4 not passing" in text
    assert "Groups live" in text
    assert "Changes 3, 3 up or down in the last hour" in text
    assert text.count("UTC okay to failed") == 2
    assert text.count("UTC failed to okay") == 1


def test_how_long_is_not_said_of_a_verdict_that_only_the_reader_has() -> None:
    now = [1000.0]
    health = Health(max_age=0, clock=lambda: now[0])
    check = health.add("search", well, interval=60)
    health.start()
    until_sync(lambda: check.status is Status.OKAY)
    assert "Okay for less than a second" in page_of(health).text
    now[0] += 600

    text = page_of(health).text
    assert "Unknown Stale" in text
    assert "Unknown for" not in text
    anyio.run(health.aclose)


def test_an_open_circuit_is_shown() -> None:
    health = open_circuit()
    text = page_of(health).text

    assert re.search(r"Circuit open, next trial in \d+ s, opened once ", text)
    assert "Circuit open : OSError" in text
    for _ in range(2):
        with pytest.raises(DependencyUnavailable), health.check("payments").guard():
            pass
    assert "refused a call 2 times" in page_of(health).text


def test_thresholds_are_shown_where_they_hold_a_verdict() -> None:
    fails = [False]

    def probe() -> None:
        if fails[0]:
            raise OSError("down")

    health = Health(max_age=60)
    health.add("search", probe, failure_threshold=3)
    health.run_sync()
    fails[0] = True
    health.run_sync(fresh=True)

    assert "Last run by itself failed" in page_of(health).text


HOSTILE = "<script>alert(1)</script>\"'&<!--]]>\u202e\x00\n\ud800"


def test_whatever_a_probe_says_is_text() -> None:
    health = Health(
        max_age=60,
        service=HOSTILE,
        version=HOSTILE,
        description=HOSTILE,
        release="<b>&'\"",
        links={HOSTILE: HOSTILE},
    )
    health.add("a", lambda: Degraded(HOSTILE, {HOSTILE: HOSTILE}), description=HOSTILE)
    health.add("b", lambda: {HOSTILE: HOSTILE}, description=HOSTILE)

    def hostile() -> None:
        raise OSError(HOSTILE)

    health.add("c", hostile, description=HOSTILE, breaker=CircuitBreaker())
    for path in ("", "/a", "/b", "/c"):
        document = page_of(health, path)
        assert "alert(1)" in document.text
        assert not document.all("script")
        app = WSGI.middleware(health, show="full")
        raw = WSGI.ask(app, f"/health_check{path}", query="format=html").body
        assert b"<script" not in raw
        assert b"<!--" not in raw
        assert b"&lt;b&gt;" in raw  # the release
        for form in ("text&verbose", "json", "prometheus", "openmetrics"):
            body = WSGI.ask(app, f"/health_check{path}", query=f"format={form}").body
            assert b"\x00" not in body
            assert form != "json" or body.isascii()


def test_a_measurement_is_shown_with_its_name_in_words() -> None:
    assert "lag seconds 1.5" in page_of(degraded()).text


def test_links_are_there_to_be_followed() -> None:
    links = {
        "runbook": "https://wiki.example/run?a=1&b='\"><script>",
        "<b>more": "HTTP://shop.example/",
        "run": "javascript:alert(1)",
        "mail": "mailto:ops@shop.example",
    }
    linked = Health(service="shop", links=links)
    linked.add("database", well)
    for level in ("names", "full"):
        page = page_of(linked, level=level)
        targets = [a["href"] for a in page.all("a") if not (a["href"] or "").startswith("?")]
        assert targets == [links["runbook"], links["<b>more"]]
        assert "Links runbook , <b>more" in page.text
        assert not page.all("script")
    assert "runbook" not in page_of(linked, level="summary").text
    assert "Links" not in page_of(healthy()).text


def test_what_is_withheld_is_said() -> None:
    withheld = "Messages, times and history are for authorised callers."

    assert withheld in page_of(failing(), level="names").text
    assert withheld in page_of(failing(), level="summary").text
    assert withheld not in page_of(failing()).text


def test_a_page_of_many_failures_names_some() -> None:
    health = Health(max_age=60)
    for number in range(30):
        health.add(f"service-{number:02d}", broken)

    text = page_of(health).text
    assert "service-07 (failed), and 22 more." in text
    assert "Failed 30" in text


def test_a_page_of_200_checks_is_no_burden() -> None:
    health = Health(max_age=60)
    for number in range(200):
        health.add(f"service-{number:03d}", well)
    app = WSGI.middleware(health, show="full")

    assert len(WSGI.ask(app, query="format=html").body) < 400_000


def test_the_page_can_be_made_of_a_report_alone() -> None:
    result = Result(name="a", status=Status.OKAY, reason=Reason.OKAY)
    report = Report(
        group="ready", status=Status.OKAY, code=200, results=MappingProxyType({"a": result})
    )
    view = View(report=report, level=Level.NAMES, at=datetime.now(UTC), checks=1)

    assert "The check passes." in Document(html.render(view)).text


# Pictures and durations


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.0 ms"),
        (0.00042, "0.4 ms"),
        (0.00994, "9.9 ms"),
        (0.00996, "10 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (1.0, "1.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7100, "118 min"),
        (7200, "2 h"),
        (47 * 3600, "47 h"),
        (48 * 3600, "2 d"),
    ],
)
def test_durations_are_written_as_people_do(seconds: float, shown: str) -> None:
    assert in_short(seconds) == shown


def test_a_sparkline_says_in_words_what_it_shows() -> None:
    runs = [PastRun(0.010, Status.OKAY), PastRun(0.030, Status.DEGRADED)]
    runs.append(PastRun(2.0, Status.FAILED))

    picture = Document(sparkline(runs))

    (svg,) = picture.all("svg")
    assert svg["role"] == "img"
    assert svg["aria-label"] == "Last 3 runs: median 30 ms, longest 2.0 s, 1 not passing"
    okay, poor, bad = picture.all("path")
    assert "class" not in okay
    assert (poor["class"], bad["class"]) == ("poor", "bad")
    assert str(bad["d"]).count("M") == 2  # a gap, for who sees no red


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (list, ""),
        (lambda: [PastRun(0.001, Status.OKAY)], "Last 1 run: median 1.0 ms, longest 1.0 ms, none"),
        (lambda: [PastRun(0.0, Status.OKAY)] * 2, "Last 2 runs: median 0.0 ms"),
        (lambda: [PastRun(1.0, Status.OKAY)] * 60, "Last 30 runs: median 1.0 s"),
    ],
)
def test_a_sparkline_is_of_what_there_is(make: Callable[[], Any], words: str) -> None:
    runs = make()
    picture = sparkline(runs)

    assert picture.count("<path") == min(len(runs), 30)
    assert words in picture
    assert "nan" not in picture
