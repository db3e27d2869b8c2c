"""Who may see what, and ask for what."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import re
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from healthmw import Health, asgi
from healthmw.access import Caller, Networks, Token, WrongCredentialsError
from healthmw.testing import ScriptedProbe
from tests.broken_log import broken_log
from tests.states import (
    DETAIL,
    PASSWORD,
    PRIVATE,
    STATES,
    broken,
    failing,
    healthy,
    open_circuit,
    well,
)
from tests.transports import TRANSPORTS, Answer, Transport, ask_asgi
from tests.waiting import PATIENCE, InThread, soon, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "0123456789abcdef-a-token"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
WRONG = {"Authorization": "Bearer 0123456789abcdef-no-token"}

FORMATS = ("text", "text&verbose", "json", "html", "html&refresh=0", "prometheus", "openmetrics")


@pytest.fixture(params=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> Transport:
    return TRANSPORTS[request.param]


def everything(answer: Answer) -> str:
    """Return all of an answer, as it might be searched for what it should not hold."""
    body = re.sub("<style>.*</style>", "", answer.body.decode(), flags=re.DOTALL)
    return f"{[one for one in answer.headers if one[0] != 'cache-control']} {body}"


# Levels against formats: what may be seen, and that nothing else is

NUMBERS = re.compile(r"\d ms|\bago\b|seconds\W|duration|used.bytes|_total|spark|UTC</time> okay")


@pytest.mark.parametrize("path", ["", "/release", "/live", "/startup", "/database", "/search"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["summary", "names", "full", "names, authorised"])
def test_no_level_shows_more_than_it_may(how: str, state: str, path: str) -> None:
    transport = TRANSPORTS["wsgi"]
    health = STATES[state](service="a-service", description="About it")
    app = transport.middleware(health, show=how.partition(",")[0], authorize=Token(TOKEN))
    headers = RIGHT if "authorised" in how else {}

    for form, method in itertools.product(FORMATS, ("GET", "HEAD", "GET")):
        answer = transport.ask(
            app, f"/health_check{path}", method, query=f"format={form}", headers=headers
        )
        shown = everything(answer)
        assert PASSWORD not in shown
        assert TOKEN not in shown
        if how in {"summary", "names"}:
            assert not [secret for secret in PRIVATE if secret in shown]
            assert "server-timing" not in answer
            assert not NUMBERS.search(shown.replace("every 5 seconds", ""))
        if how == "summary":
            names = {"database", "cache", "queue", "mail", "search", "payments"}
            assert not [name for name in names if name in shown]
            reasons = {"circuit", "never", "raining", "registered", "a-service", "About it"}
            assert not [reason for reason in reasons if reason in shown]
        elif how != "names" and state == "failing" and path == "" and method == "GET":
            # So that the search itself is known to find what is there.
            assert form == "text" or NUMBERS.search(shown)


@pytest.mark.parametrize(
    ("form", "seen"),
    [
        ("text", "FAILED: search (failed)"),
        ("text&verbose", f"OSError: {DETAIL}"),
        ("json", DETAIL),
        ("html", DETAIL),
        ("prometheus", "healthmw_check_runs_total"),
        ("openmetrics", "healthmw_check_runs_total"),
    ],
)
def test_full_shows_it_all(transport: Transport, form: str, seen: str) -> None:
    app = transport.middleware(failing(), authorize=Token(TOKEN))

    assert seen in transport.ask(app, query=f"format={form}", headers=RIGHT).body.decode()


def test_names_are_the_default(transport: Transport) -> None:
    answer = transport.ask(transport.middleware(failing()), query="verbose")

    assert answer.body.decode().splitlines() == [
        "FAILED: search (failed)",
        "[+] database okay",
        "[+] cache okay",
        "[~] queue degraded",
        "[-] mail failed (not critical)",
        "[-] search failed",
    ]


def test_summary_says_okay_or_failed(transport: Transport) -> None:
    assert transport.ask(transport.middleware(healthy(), show="summary")).body == b"OKAY"
    app = transport.middleware(failing(), show="summary")
    for path in ("", "/ready", "/release", "/startup"):
        answer = transport.ask(app, f"/health_check{path}")
        assert (answer.status, answer.body) == (503, b"FAILED")
        assert transport.ask(app, f"/health_check{path}", query="verbose").body == b"FAILED\n"


def test_summary_does_not_tell_which_checks_there_are(transport: Transport) -> None:
    app = transport.middleware(failing(), show="summary", authorize=Token(TOKEN))

    there = transport.ask(app, "/health_check/search")
    assert there == transport.ask(app, "/health_check/nothing")
    assert there.status == 404
    assert transport.ask(app, "/health_check/search", headers=RIGHT).status == 503


# Options


@pytest.mark.parametrize("kind", ["middleware", "app"])
def test_options_that_make_no_sense_are_refused(transport: Transport, kind: str) -> None:
    make: Callable[..., Any] = getattr(transport, kind)
    with pytest.raises(ValueError, match=r"show='all' must be one of 'summary', 'names', 'full'"):
        make(healthy(), show="all")
    with pytest.raises(TypeError, match=r"write authorize=Token\(\.\.\.\)"):
        make(healthy(), authorize=TOKEN)
    with pytest.raises(TypeError, match="authorize must hold functions, not str"):
        make(healthy(), authorize=[TOKEN])
    for given in (Token, [Networks("10.0.0.0/8"), Token]):
        with pytest.raises(TypeError, match=r"Token is a class: write authorize=Token\(\.\.\.\)"):
            make(healthy(), authorize=given)
    with pytest.raises(ValueError, match="authorize is empty"):
        make(healthy(), authorize=[])


def test_an_async_function_is_for_asgi() -> None:
    async def authorize(_caller: Caller) -> bool:
        return True

    for given in (authorize, functools.partial(authorize), [Token(TOKEN), authorize]):
        with pytest.raises(TypeError, match="authorize must not be async"):
            TRANSPORTS["wsgi"].middleware(healthy(), authorize=given)


@pytest.mark.parametrize("token", ["", "short", "x" * 15, "with space in its middle", "ä" * 20])
def test_a_token_that_is_weak_or_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="a token needs 16 or more visible ASCII") as info:
        Token(token)
    assert not token or token not in str(info.value)


def test_a_token_of_another_type_is_refused() -> None:
    given: Any = TOKEN.encode()
    with pytest.raises(TypeError, match="tokens must be str, not bytes"):
        Token(given)
    with pytest.raises(ValueError, match="give at least one"):
        Token()


@pytest.mark.parametrize("network", ["", "10.0.0.1/8", "example.com", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match=r"^networks: "):
        Networks(network)
    with pytest.raises(ValueError, match=r"^proxies: "):
        Networks("10.0.0.0/8", proxies=[network])


@pytest.mark.parametrize(
    ("networks", "options", "message"),
    [
        ([5], {}, "networks must be .* not int"),
        ([b"\x0a\x00\x00\x01"], {}, "networks must be .* not bytes"),
        (["10.0.0.0/8"], {"proxies": [5]}, "proxies must be .* 5 is none"),
        (["10.0.0.0/8"], {"proxies": None}, "proxies must be .* not NoneType"),
        (["10.0.0.0/8"], {"header": 5}, "header must be a str, not int"),
    ],
)
def test_networks_of_another_type_are_refused(
    networks: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message) as info:
        Networks(*networks, **options)
    assert isinstance(info.value, ValueError)


@pytest.mark.parametrize("header", ["", "X-Real-IP:", "X Real IP", "X-Real-IP\n"])
def test_what_no_header_goes_by_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match=r"^header="):
        Networks("10.0.0.0/8", proxies=["unix"], header=header)


def test_networks_are_given_as_several() -> None:
    with pytest.raises(ValueError, match="give at least one"):
        Networks()
    with pytest.raises(TypeError, match=r"write proxies=\['10.0.0.1'\]"):
        Networks("10.0.0.0/8", proxies="10.0.0.1")


def test_a_representation_tells_no_secret() -> None:
    def header(_name: str) -> str:
        return TOKEN

    caller = Caller(peer="10.0.0.1", method="GET", path="/", header=header, raw={"a": TOKEN})
    assert TOKEN not in f"{Token(TOKEN)!r} {Networks('10.0.0.0/8')!r} {caller!r}"


# Tokens


def level(transport: Transport, app: Any, **request: Any) -> str:
    """Return how much a caller is shown, or with what code it is refused."""
    answer = transport.ask(app, query="verbose", **request)
    if answer.status not in {200, 503}:
        return str(answer.status)
    return "full" if DETAIL in answer.body.decode() else "names"


def test_the_right_token_shows_everything(transport: Transport) -> None:
    app = transport.middleware(failing(), authorize=Token("another-token-0123", TOKEN))

    assert level(transport, app) == "names"
    assert level(transport, app, headers=RIGHT) == "full"
    for scheme in ("bearer", "BEARER"):
        assert level(transport, app, headers={"Authorization": f"{scheme} {TOKEN}"}) == "full"
    assert level(transport, app, headers={"Authorization": "Bearer another-token-0123"}) == "full"
    assert level(transport, app, headers={"Authorization": f"Bearer   {TOKEN}  "}) == "full"


@pytest.mark.parametrize("given", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä", "x" * 100_000])
def test_a_wrong_token_is_told_nothing(transport: Transport, given: str) -> None:
    app = transport.middleware(failing(), authorize=Token(TOKEN))

    for path in ("", "/search", "/nothing"):
        for query in ("verbose", "format=json", "fresh=1", "only=search"):
            answer = transport.ask(
                app,
                f"/health_check{path}",
                query=query,
                headers={"Authorization": f"Bearer {given}"},
                peer=f"10.1.{len(query)}.{len(path)}",
            )
            assert (answer.status, answer.body) == (401, b"Unauthorized\n")
            assert answer["www-authenticate"] == 'Bearer realm="health"'
            assert "health-status" not in answer
            assert "health-release" not in answer
            assert answer["cache-control"] == "no-store"


def test_a_token_in_the_query_is_none(transport: Transport) -> None:
    """A URL is written into logs and histories."""
    app = transport.middleware(failing(), authorize=Token(TOKEN))

    for name in ("token", "access_token", "authorization", "key"):
        for value in (TOKEN, f"Bearer%20{TOKEN}"):
            answer = transport.ask(app, query=f"verbose&{name}={value}")
            assert answer.status == 503
            assert DETAIL not in answer.body.decode()
            assert transport.ask(app, query=f"fresh=1&{name}={value}").status == 401


def test_the_environment_is_not_shown(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_SETTING", "a-setting-of-the-shop")
    app = transport.middleware(failing(), show="full")

    for form in FORMATS:
        answer = transport.ask(app, query=f"format={form}")
        assert answer.status in {200, 503}
        assert not re.search("shop.setting|setting.of.the", everything(answer), re.IGNORECASE)
    for path in ("env", "info", "config", "metrics", "debug"):
        assert transport.ask(app, f"/health_check/{path}").status == 404


def test_another_scheme_is_the_apps_own_affair(transport: Transport) -> None:
    app = transport.middleware(failing(), authorize=Token(TOKEN))

    for value in ("Basic YWRtaW46cHc=", TOKEN, f"Token {TOKEN}", f"Bearer{TOKEN}"):
        assert level(transport, app, headers={"Authorization": value}) == "names"


@pytest.mark.parametrize("form", FORMATS)
def test_timings_are_for_the_authorised_in_every_format(transport: Transport, form: str) -> None:
    app = transport.middleware(failing(), authorize=Token(TOKEN))

    # The second is served from memory, and so is what the others get after it.
    for _ in range(2):
        timing = transport.ask(app, query=f"format={form}", headers=RIGHT)["server-timing"]
        assert re.fullmatch(r"[\w-]+;dur=\d+\.\d(, [\w-]+;dur=\d+\.\d)*", timing)
        assert {one.partition(";")[0] for one in timing.split(", ")} >= {"database", "search"}
        assert PASSWORD not in timing
        for headers in ({}, WRONG):
            assert "server-timing" not in transport.ask(
                app, query=f"format={form}", headers=headers
            )


def test_timings_are_of_what_was_asked_for(transport: Transport) -> None:
    app = transport.middleware(failing(), authorize=Token(TOKEN))

    one = transport.ask(app, "/health_check/search", headers=RIGHT)["server-timing"]
    assert one.startswith("search;dur=")
    assert "," not in one
    some = transport.ask(app, query="only=database", headers=RIGHT)["server-timing"]
    assert some.startswith("database;dur=")
    assert "," not in some


def test_a_wrong_token_never_takes_the_app_for_dead(transport: Transport) -> None:
    app = transport.middleware(healthy(), authorize=Token(TOKEN))

    for _ in range(30):  # beyond what is let through
        for path in ("", "/ready", "/startup", "/live"):
            answer = transport.ask(app, f"/health_check{path}", headers=WRONG)
            assert (answer.status, answer.body) == (200, b"OKAY")
            assert answer["health-status"] == "okay"
    assert (
        transport.ask(app, "/health_check/live", query="format=json", headers=WRONG).status == 200
    )
    health = failing()
    app = transport.middleware(health, authorize=Token(TOKEN))
    answer = transport.ask(app, headers=WRONG)
    assert (answer.status, answer.body) == (503, b"FAILED")  # and nothing more


def test_guessing_is_slowed_down(transport: Transport) -> None:
    now = [1000.0]
    app = transport.middleware(failing(clock=lambda: now[0]), authorize=Token(TOKEN))

    assert [level(transport, app, headers=WRONG) for _ in range(12)] == ["401"] * 10 + ["429"] * 2
    # The right one isn't looked at either, or guessing would go on; who shows none is not affected.
    assert level(transport, app, headers=RIGHT) == "429"
    assert level(transport, app) == "names"
    assert level(transport, app, headers=RIGHT, peer="10.0.0.7") == "full"
    answer = transport.ask(app, query="verbose", headers=WRONG)
    assert answer.body == b"Too many requests\n"
    now[0] += int(answer["retry-after"])
    assert level(transport, app, headers=RIGHT) == "full"
    assert level(transport, app, headers=WRONG) == "401"
    assert level(transport, app, headers=WRONG) == "429"


KEY = "a-key-of-the-operators"


def by_key(caller: Caller) -> bool:
    if not caller.header("X-Api-Key"):
        return False
    if caller.header("X-Api-Key") != KEY:
        raise WrongCredentialsError
    return True


async def by_key_async(caller: Caller) -> bool:
    return by_key(caller)


@pytest.mark.parametrize(
    ("interface", "rule"), [("wsgi", by_key), ("asgi", by_key), ("asgi", by_key_async)]
)
def test_guessing_against_a_rule_of_the_users_own_is_slowed_down(interface: str, rule: Any) -> None:
    now, transport = [1000.0], TRANSPORTS[interface]
    app = transport.middleware(
        failing(clock=lambda: now[0]), authorize=[rule, Networks("10.1.0.0/16")]
    )
    right, wrong = {"X-Api-Key": KEY}, {"X-Api-Key": "another"}

    assert [level(transport, app, headers=wrong) for _ in range(12)] == ["403"] * 10 + ["429"] * 2
    assert level(transport, app, headers=right) == "429"
    assert level(transport, app) == "names"
    assert level(transport, app, headers=right, peer="10.0.0.7") == "full"
    # A network is no guess: who is in one is let through, whoever else guesses from there.
    for _ in range(12):
        assert level(transport, app, headers=wrong, peer="10.1.0.7") == "full"
    now[0] += 6
    assert level(transport, app, headers=right) == "full"
    assert level(transport, app, headers=wrong) == "403"
    assert level(transport, app, headers=wrong) == "429"


def test_guessing_is_slowed_down_whoever_else_is_asked() -> None:
    transport = TRANSPORTS["wsgi"]
    app = transport.middleware(failing(clock=lambda: 1000.0), authorize=[by_key, Token(TOKEN)])

    for _ in range(10):
        assert level(transport, app, headers={"X-Api-Key": "another"}) == "401"
    assert level(transport, app, headers={"X-Api-Key": KEY}) == "429"
    assert level(transport, app, headers=RIGHT) == "429"
    assert level(transport, app) == "names"


def test_who_is_right_is_never_slowed_down(transport: Transport) -> None:
    app = transport.middleware(failing(), authorize=Token(TOKEN))

    assert {level(transport, app, headers=RIGHT) for _ in range(40)} == {"full"}


def test_an_ipv6_host_is_one_whatever_its_address() -> None:
    transport = TRANSPORTS["asgi"]
    app = transport.middleware(failing(clock=lambda: 1000.0), authorize=Token(TOKEN))

    for number in range(10):
        assert level(transport, app, headers=WRONG, peer=f"2001:db8::{number:x}") == "401"
    assert level(transport, app, headers=WRONG, peer="2001:db8::ffff") == "429"
    assert level(transport, app, headers=WRONG, peer="2001:db8:0:1::1") == "401"


def test_the_memory_of_who_guessed_is_bounded() -> None:
    transport = TRANSPORTS["wsgi"]
    app = transport.middleware(healthy(), authorize=Token(TOKEN))

    for number in range(1200):
        peer = f"10.2.{number // 256}.{number % 256}"
        transport.ask(app, query="verbose", headers=WRONG, peer=peer)
    assert len(app._endpoint.gate._throttle._left) == 1024  # it's the bound itself that is tested


# Networks


@pytest.mark.parametrize(
    ("peer", "seen"),
    [
        ("10.1.2.3", "full"),
        ("::ffff:10.1.2.3", "full"),
        ("fd00::1", "full"),
        ("fd00::1%eth0", "full"),
        ("11.0.0.1", "names"),
        ("fe80::1", "names"),
        ("testclient", "names"),
        ("", "names"),
        ("10.1.2.3.4", "names"),
    ],
)
def test_a_network_shows_its_hosts_everything(transport: Transport, peer: str, seen: str) -> None:
    app = transport.middleware(failing(), authorize=Networks("10.0.0.0/8", "fd00::/8"))

    assert [level(transport, app, peer=peer) for _ in range(2)] == [seen, seen]


def test_a_forwarded_address_is_not_believed(transport: Transport) -> None:
    app = transport.middleware(failing(), authorize=Networks("10.0.0.0/8"))
    forged = {"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1", "X-Real-IP": "10.0.0.1"}

    assert level(transport, app, peer="203.0.113.9", headers=forged) == "names"


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("192.0.2.1", "10.0.0.1", "full"),
        ("192.0.2.1", "10.0.0.1:4711", "full"),
        ("192.0.2.1", "[fd00::1]:4711", "full"),
        ("192.0.2.1", "fd00::1", "full"),
        ("192.0.2.1", "203.0.113.9, 10.0.0.1", "full"),
        ("192.0.2.1", "10.0.0.1, 192.0.2.2", "full"),
        ("192.0.2.1", "10.0.0.1, 203.0.113.9", "names"),
        ("192.0.2.1", "10.0.0.1, 203.0.113.9, 192.0.2.2", "names"),
        ("192.0.2.1", "10.0.0.1, nonsense", "names"),
        ("192.0.2.1", "10.0.0.1,", "names"),
        ("192.0.2.1", "", "names"),
        ("192.0.2.1", "192.0.2.2", "names"),
        ("192.0.2.1", "10.0.0.1," + " 192.0.2.2," * 1000 + "192.0.2.2", "names"),
        ("203.0.113.9", "10.0.0.1", "names"),
        ("10.0.0.1", "203.0.113.9", "full"),
        ("", "10.0.0.1", "names"),
    ],
)
def test_a_named_proxy_is_believed(
    transport: Transport, peer: str, forwarded: str, seen: str
) -> None:
    networks = Networks("10.0.0.0/8", "fd00::/8", proxies=["192.0.2.0/24"])
    app = transport.middleware(failing(), authorize=networks)

    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    assert level(transport, app, peer=peer, headers=headers) == seen


@pytest.mark.parametrize("peer", ["", "localhost", "0.0.0.0"])  # noqa: S104 - nothing is bound
def test_a_unix_socket_is_a_proxy_if_it_is_named(transport: Transport, peer: str) -> None:
    """It has no address; waitress and uWSGI write one all the same, which no peer can have."""
    app = transport.middleware(failing(), authorize=Networks("10.0.0.0/8", proxies=["unix"]))

    assert level(transport, app, peer=peer, headers={"X-Forwarded-For": "10.0.0.1"}) == "full"
    assert level(transport, app, peer=peer, headers={"X-Forwarded-For": "11.0.0.1"}) == "names"
    assert level(transport, app, peer=peer) == "names"
    forged = {"X-Forwarded-For": "10.0.0.1"}
    assert level(transport, app, peer="203.0.113.9", headers=forged) == "names"


def test_a_proxy_may_write_another_header(transport: Transport) -> None:
    networks = Networks("10.0.0.0/8", proxies=["192.0.2.1"], header="X-Real-IP")
    app = transport.middleware(failing(), authorize=networks)

    assert level(transport, app, peer="192.0.2.1", headers={"X-Real-IP": "10.0.0.1"}) == "full"
    forged = {"X-Forwarded-For": "10.0.0.1"}
    assert level(transport, app, peer="192.0.2.1", headers=forged) == "names"


def test_many_peers_do_not_fill_the_memory() -> None:
    networks = Networks("10.0.0.0/8")
    for number in range(3000):
        caller = Caller(
            peer=f"10.3.{number // 256}.{number % 256}",
            method="GET",
            path="/",
            header=lambda _name: "",
            raw={},
        )
        assert networks(caller) is True
    assert len(networks._judged) <= 1024  # it's the bound itself that is tested


# Functions of the user's own


def test_a_function_is_told_who_asks(transport: Transport) -> None:
    callers: list[Caller] = []

    def authorize(caller: Caller) -> bool:
        callers.append(caller)
        return caller.header("X-Team") == "ops" and caller.header("x-TEAM") == "ops"

    app = transport.middleware(failing(), authorize=authorize)
    assert level(transport, app) == "names"
    assert level(transport, app, headers={"X-Team": "ops"}, peer="10.0.0.1") == "full"
    (_, caller) = callers
    assert (caller.peer, caller.method, caller.path) == ("10.0.0.1", "GET", "/health_check")
    assert {"path", "PATH_INFO"} & caller.raw.keys()
    assert caller.header("X-Nothing") == ""


@pytest.mark.parametrize("interface", ["asgi", "asgi+trio"])
def test_a_function_may_be_async(interface: str) -> None:
    transport = TRANSPORTS[interface]

    async def authorize(caller: Caller) -> bool:
        if caller.header("X-Team") == "errors":
            raise RuntimeError("no such team")
        if caller.header("X-Team") == "exits":
            raise SystemExit(3)
        return caller.header("X-Team") == "ops"

    app = transport.middleware(failing(), authorize=[authorize, Token(TOKEN)])
    assert level(transport, app) == "names"
    assert level(transport, app, headers={"X-Team": "ops"}) == "full"
    assert level(transport, app, headers={"X-Team": "errors"}) == "names"
    assert level(transport, app, headers={"X-Team": "exits"}) == "names"
    assert level(transport, app, headers=RIGHT) == "full"
    assert level(transport, app, headers=WRONG) == "401"


@pytest.mark.parametrize("interface", ["asgi", "asgi+trio"])
def test_who_waits_for_an_async_function_has_the_answer_by_the_deadline(
    interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport = TRANSPORTS[interface]
    hangs = True

    async def authorize(caller: Caller) -> bool:
        if hangs:
            await anyio.sleep(5)
        return caller.header("X-Team") == "ops"

    app = transport.middleware(failing(deadline=0.2), authorize=[authorize, Token(TOKEN)])
    ops = {"X-Team": "ops"}
    for _ in range(2):
        assert level(transport, app, headers=ops) == "names"
        assert level(transport, app, headers=RIGHT) == "full"  # the others are asked all the same
    assert level(transport, app, headers=WRONG) == "401"
    assert transport.ask(app, query="fresh=1", headers=ops).status == 401
    assert transport.ask(app, "/health_check/live").body == b"OKAY"
    told = (
        "authorize: number 1 was not back within the 0.1 s that all have together; "
        "it grants nothing"
    )
    assert [record.getMessage() for record in caplog.records].count(told) == 1

    hangs = False
    assert level(transport, app, headers=ops) == "full"
    hangs = True
    assert level(transport, app, headers=ops) == "names"
    assert [record.getMessage() for record in caplog.records].count(told) == 2


def test_one_that_waits_for_a_thread_is_late_as_any_other() -> None:
    go_on = threading.Event()

    async def authorize(_caller: Caller) -> bool:
        return await anyio.to_thread.run_sync(go_on.wait, PATIENCE)

    transport = TRANSPORTS["asgi"]
    app = transport.middleware(failing(deadline=0.2), authorize=authorize)
    try:
        asked = InThread(lambda: level(transport, app))
        until_sync(lambda: asked.done or go_on.is_set())
        assert asked.result() == "names"
    finally:
        go_on.set()


@pytest.mark.anyio
async def test_one_that_takes_its_time_to_clean_up_is_left_behind() -> None:
    cleaned_up, go_on = anyio.Event(), anyio.Event()

    async def authorize(_caller: Caller) -> bool:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(PATIENCE, shield=True):
                await go_on.wait()
                cleaned_up.set()
        return True

    app = asgi.HealthApp(failing(deadline=0.2), authorize=authorize)
    answer = await soon(ask_asgi(app, path="/health_check", query="fresh=1"))
    assert answer.status == 403
    assert not cleaned_up.is_set()
    go_on.set()
    await soon(cleaned_up.wait())


@pytest.mark.anyio
async def test_one_that_nobody_waits_for_any_more_is_cancelled() -> None:
    asked, gone = anyio.Event(), anyio.Event()

    async def authorize(_caller: Caller) -> bool:
        asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            gone.set()
        return True

    app = asgi.HealthApp(failing(deadline=PATIENCE * 4), authorize=authorize)
    async with anyio.create_task_group() as group:
        group.start_soon(functools.partial(ask_asgi, app, path="/health_check"))
        await soon(asked.wait())
        group.cancel_scope.cancel()
    await soon(gone.wait())


@pytest.mark.anyio
async def test_an_async_function_has_the_context_of_the_request() -> None:
    team = ContextVar("team", default="nobody")

    async def authorize(_caller: Caller) -> bool:
        await anyio.lowlevel.checkpoint()
        return team.get() == "ops"

    app = asgi.HealthApp(failing(), authorize=authorize)

    async def asked_by(who: str) -> int:
        async def known(*connection: Any) -> None:  # as a middleware does
            team.set(who)
            await app(*connection)

        return (await ask_asgi(known, path="/health_check", query="fresh=1")).status

    assert await asked_by("ops") == 503
    assert await asked_by("guests") == 403


def test_one_that_is_cancelled_by_others_grants_nothing() -> None:
    """Where callers share what is fetched for them, the first that is late cancels it for all."""
    fetching: list[asyncio.Task[bool]] = []

    async def fetch() -> bool:
        await asyncio.Event().wait()
        return True

    async def authorize(_caller: Caller) -> bool:
        if not fetching:
            fetching.append(asyncio.ensure_future(fetch()))
        return await fetching[0]

    async def main() -> list[Answer]:
        app = asgi.HealthApp(failing(deadline=0.2), authorize=authorize)
        return [await ask_asgi(app, path="/health_check", query="fresh=1") for _ in range(2)]

    assert [answer.status for answer in asyncio.run(main())] == [403, 403]
    assert fetching[0].cancelled()


@pytest.mark.parametrize("interface", ["asgi", "asgi+trio"])
def test_what_an_async_function_takes_the_checks_do_not_have(interface: str) -> None:
    async def authorize(_caller: Caller) -> bool:
        await anyio.sleep(5)
        return True

    health = Health(deadline=1.0)
    health.add("slow", anyio.sleep_forever, timeout=60)
    transport = TRANSPORTS[interface]
    app = transport.middleware(health, authorize=authorize)
    began = time.monotonic()
    assert transport.ask(app).status == 503
    assert time.monotonic() - began < 1.4  # half of it for the one, and half for the other


def test_an_async_function_that_blocks_leaves_time_for_the_checks() -> None:
    async def authorize(_caller: Caller) -> bool:
        time.sleep(0.5)  # noqa: ASYNC251 - that is the point
        return False

    health = Health(deadline=0.4)
    health.add("it", functools.partial(anyio.sleep, 0.01))
    transport = TRANSPORTS["asgi"]
    app = transport.middleware(health, authorize=authorize)
    assert transport.ask(app).body == b"OKAY"


def test_of_several_one_is_enough(transport: Transport) -> None:
    app = transport.middleware(failing(), authorize=[Token(TOKEN), Networks("10.0.0.0/8")])

    assert level(transport, app) == "names"
    assert level(transport, app, headers=RIGHT) == "full"
    assert level(transport, app, peer="10.0.0.1") == "full"
    assert level(transport, app, headers=WRONG) == "401"
    assert level(transport, app, headers=WRONG, peer="10.0.0.1") == "full"


@pytest.mark.parametrize("answer", [None, 1, "yes", b"", object(), [True]])
def test_what_is_not_true_or_false_grants_nothing(
    transport: Transport, caplog: pytest.LogCaptureFixture, answer: object
) -> None:
    app = transport.middleware(failing(), authorize=lambda _caller: answer)

    assert level(transport, app) == "names"
    assert "authorize must return True or False" in caplog.text


def test_a_coroutine_that_nobody_awaits_grants_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def authorize(_caller: Caller) -> bool:
        return True

    transport = TRANSPORTS["wsgi"]

    def looks_sync(caller: Caller) -> object:
        return authorize(caller)

    app = transport.middleware(failing(), authorize=looks_sync)

    assert level(transport, app) == "names"
    assert "not coroutine" in caplog.text


@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_a_function_that_raises_grants_nothing(
    transport: Transport, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def authorize(_caller: Caller) -> bool:
        raise error(f"no user: token={TOKEN}")

    app = transport.middleware(failing(), authorize=authorize)

    with caplog.at_level(logging.ERROR, "healthmw"):
        assert level(transport, app) == "names"
        assert transport.ask(app, query="fresh=1").status == 403
    assert f"authorize: nothing is granted: {error.__name__}" in caplog.text
    assert TOKEN not in caplog.text


def test_a_function_that_raises_grants_nothing_though_no_log_takes_it(
    transport: Transport, breakdowns: list[BaseException]
) -> None:
    def authorize(_caller: Caller) -> bool:
        raise LookupError

    with broken_log():
        assert level(transport, transport.middleware(failing(), authorize=authorize)) == "names"
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


def test_a_function_may_say_that_credentials_are_wrong(transport: Transport) -> None:
    def authorize(_caller: Caller) -> bool:
        raise WrongCredentialsError

    app = transport.middleware(failing(), authorize=authorize)

    answer = transport.ask(app, query="verbose")
    assert (answer.status, answer.body) == (403, b"Forbidden\n")
    assert transport.ask(app).body == b"FAILED"


# What only the authorised may ask for

PRIVILEGED = ("fresh", "fresh=1", "only=database", "exclude=database", "only=", "exclude=nothing")


@pytest.mark.parametrize("query", PRIVILEGED)
def test_whoever_is_not_authorised_may_not_choose(transport: Transport, query: str) -> None:
    ran = []
    health = Health(max_age=0)
    health.add("database", lambda: ran.append(1))

    for options, code in (
        ({}, 403),
        ({"show": "full"}, 403),
        ({"authorize": Networks("10.0.0.0/8")}, 403),
        ({"authorize": Token(TOKEN)}, 401),
        ({"authorize": [Networks("10.0.0.0/8"), Token(TOKEN)]}, 401),
    ):
        app = transport.middleware(health, **options)
        for method in ("GET", "HEAD"):
            answer = transport.ask(app, method=method, query=query)
            assert answer.status == code
            assert ("www-authenticate" in answer) is (code == 401)
            assert (answer.body == b"") is (method == "HEAD")
    assert not ran


@pytest.mark.parametrize("query", ["fresh=0", "fresh=false", "refresh=1", "onlyx=1"])
def test_what_is_not_asked_for_needs_no_leave(transport: Transport, query: str) -> None:
    assert transport.ask(transport.middleware(healthy()), query=query).status == 200


def authorised(transport: Transport, app: Any, query: str, path: str = "") -> Answer:
    return transport.ask(app, f"/health_check{path}", query=query, headers=RIGHT)


def test_only_and_exclude_choose_what_counts(transport: Transport) -> None:
    health = healthy()
    health.add("search", broken)
    ran = []
    health.add("disk", lambda: ran.append(1))
    app = transport.middleware(health, authorize=Token(TOKEN))

    assert authorised(transport, app, "exclude=search").body == b"OKAY"
    assert ran
    assert authorised(transport, app, "only=database,cache").body == b"OKAY"
    assert authorised(transport, app, "only=database&only=cache").body == b"OKAY"
    assert authorised(transport, app, "only=search").body == b"FAILED: search (failed)"
    assert authorised(transport, app, "only=search&only=disk&exclude=search").body == b"OKAY"
    assert authorised(transport, app, "only=search", "/search").status == 503
    verbose = authorised(transport, app, "only=database&verbose").body
    assert verbose.startswith(b"OKAY\n[+] database okay")
    assert b"search" not in verbose
    # What one caller chooses is not what the next one is told.
    assert transport.ask(app).body == b"FAILED: search (failed)"


def test_what_is_excluded_does_not_run(transport: Transport) -> None:
    ran = []
    health = Health(max_age=0)
    health.add("database", well)
    health.add("search", lambda: ran.append(1))
    app = transport.middleware(health, authorize=Token(TOKEN))

    assert authorised(transport, app, "exclude=search").status == 200
    assert authorised(transport, app, "only=database").status == 200
    assert not ran


@pytest.mark.parametrize(
    "query",
    [
        "only=nothing",
        "only=database,nothing",
        "exclude=nothing",
        "exclude=DATABASE",
        "only=",
        "exclude=",
        "only=database,",
        "only=database&exclude=database",
        "exclude=database,cache",
        "only=<script>alert(1)</script>",
        "only=ready",
    ],
)
def test_a_filter_that_names_nothing_is_an_error(transport: Transport, query: str) -> None:
    app = transport.middleware(healthy(), authorize=Token(TOKEN))

    for form in ("text", "json", "html"):
        answer = authorised(transport, app, f"{query}&format={form}")
        assert answer.status == 404
        assert answer.body == b"only= and exclude= must name checks of this group, and leave some\n"
        assert "health-status" not in answer


def test_a_filter_is_never_read_by_half(transport: Transport) -> None:
    app = transport.middleware(healthy(), authorize=Token(TOKEN))

    for query in ("only=database&" + "a" * 3000, "a" * 3000 + "&exclude=database", "only=x&" * 70):
        answer = authorised(transport, app, query)
        assert (answer.status, answer.body) == (400, b"The query is too long\n")


def test_a_filter_stays_within_the_group(transport: Transport) -> None:
    health = healthy()
    health.add("schema", well, groups=["release"])
    app = transport.middleware(health, authorize=Token(TOKEN))

    assert authorised(transport, app, "only=schema").status == 404
    assert authorised(transport, app, "only=schema", "/release").status == 200


def test_a_filter_does_not_outdo_draining(transport: Transport) -> None:
    health = healthy()
    app = transport.middleware(health, authorize=Token(TOKEN))
    health.drain()

    assert authorised(transport, app, "only=database").status == 503


def test_a_filter_does_not_end_the_start(transport: Transport) -> None:
    health = healthy()
    health.add("search", broken)
    app = transport.middleware(health, authorize=Token(TOKEN))

    assert authorised(transport, app, "exclude=search", "/startup").status == 200
    assert transport.ask(app, "/health_check/startup").status == 503


def test_fresh_asks_the_dependency_itself(transport: Transport) -> None:
    ran = []
    health = Health(max_age=3600)
    health.add("database", lambda: ran.append(1))
    app = transport.middleware(health, authorize=Token(TOKEN))

    for query in ("", "verbose", "format=json"):
        transport.ask(app, query=query, headers=RIGHT)
    assert len(ran) == 1
    assert authorised(transport, app, "fresh=1").body == b"OKAY"
    assert authorised(transport, app, "fresh&format=json").status == 200
    assert len(ran) == 3


def test_the_authorised_hear_of_an_open_circuit(transport: Transport) -> None:
    app = transport.middleware(open_circuit(), authorize=Token(TOKEN))

    assert b"circuit_open" in authorised(transport, app, "only=payments").body


# Never locked


@pytest.mark.parametrize("show", ["summary", "names", "full"])
def test_liveness_and_the_bare_verdict_are_open_to_all(transport: Transport, show: str) -> None:
    app = transport.middleware(
        healthy(), show=show, authorize=[Token(TOKEN), Networks("10.0.0.0/8")]
    )

    for path in ("", "/ready", "/live", "/startup", "/release"):
        for headers in ({}, RIGHT, WRONG, {"Authorization": "nonsense"}):
            answer = transport.ask(app, f"/health_check{path}", headers=headers, peer="192.0.2.9")
            assert (answer.status, answer.body) == (200, b"OKAY")


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is known is compared, and by what does not stop early: no wall clock in a test."""
    judged: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        judged.append((a, b))
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare)
    transport = TRANSPORTS["wsgi"]
    app = transport.middleware(failing(), authorize=Token(TOKEN, "b" * 16, "c" * 16))
    assert level(transport, app, headers=RIGHT) == "full"
    assert len(judged) == 3
    assert {len(given) for pair in judged for given in pair} == {32}


def test_fresh_asks_anew_and_filters_nothing(transport: Transport) -> None:
    """What is empty, or passed for good, is that with `fresh` too."""
    health = Health(max_age=0)
    app = transport.middleware(health, authorize=Token(TOKEN))
    assert authorised(transport, app, "fresh=1", "/live").body == b"OKAY"
    nothing = authorised(transport, app, "fresh=1")
    assert (nothing.status, nothing.body) == (503, b"FAILED: no check is registered")
    probe = ScriptedProbe(None, ConnectionError("gone"))
    health.add("database", probe)
    for _ in range(2):
        assert authorised(transport, app, "fresh=1", "/startup").body == b"OKAY"
    assert probe.calls == 1
