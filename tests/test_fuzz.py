"""Whatever is sent to the endpoint: no error, no echo, no secret, and never a pass for what fails.

HEALTHMW_FUZZ_EXAMPLES=100000 makes it a long run; it counts for each transport. `make fuzz` sends
what takes new ways through the code, as seen by its coverage.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import time
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from healthmw import asgi, wsgi
from healthmw.access import Networks, Token
from tests.states import PASSWORD, PRIVATE, failing, healthy
from tests.transports import Answer, AsgiExchange, WsgiExchange, environ_for, http_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from healthmw import Health

EXAMPLES = int(os.environ.get("HEALTHMW_FUZZ_EXAMPLES", "300"))

TOKEN = "0123456789abcdef-a-token"
MARK = "zq<'\"&>qz"
"""It is put into everything that is sent. No answer may hold it: not even escaped, or in part."""
ECHO = re.compile(r"zq|qz")

CPU_SECONDS = 1.0
"""What one answer may cost at most; a thousandth of it is usual."""
KEPT_BYTES = 8 * 2**20
"""What all twelve endpoints here may keep between requests, whatever they were asked."""

NAMES = ("ready", "live", "startup", "release", "database", "cache", "queue", "mail", "search")
CODES = {200, 304, 400, 401, 403, 404, 405, 429, 503}

marked = st.sampled_from([MARK, quote(MARK), f"ready{MARK}"])
rubbish = st.one_of(
    marked,
    st.text(max_size=30),
    st.text(st.characters(max_codepoint=0x17F), max_size=30),
    st.sampled_from(["", "/", "//", "..", "%00", "%", "%zz", "\x00", "\r\n", "a" * 5000]),
)
latin = rubbish.map(lambda text: text.encode("utf-8", "replace").decode("latin-1"))
paths = st.one_of(
    st.sampled_from(["", "/", *(f"/{name}" for name in NAMES)]),
    st.lists(st.one_of(st.sampled_from(NAMES), rubbish), max_size=4).map(
        lambda parts: "".join(f"/{part}" for part in parts)
    ),
)
words = ["json", "html", "text", "prometheus", "openmetrics", "1", "0", "database,mail", *NAMES]
fields = st.one_of(
    st.tuples(st.sampled_from(["format", "only", "exclude"]), marked),
    st.tuples(
        st.one_of(
            st.sampled_from(["format", "verbose", "only", "exclude", "refresh", "fresh"]), rubbish
        ),
        st.one_of(st.sampled_from(words), rubbish),
    ),
)
queries = st.one_of(
    st.just(""),
    st.lists(fields, max_size=5).map(
        lambda pairs: "&".join(f"{quote(k)}={quote(v, safe=',')}" for k, v in pairs)
    ),
    latin,
    st.integers(0, 300).map(lambda n: f"only={MARK}&" * n),
)
types = ["*/*", "text/*", "text/html", "text/plain", "application/*", "application/json", MARK]
openmetrics = "application/openmetrics-text"
parameters = ["", ";q=0", ";q=0.5", ";q=nan", ";version=0.0.4", ";version=1.0.0", ";;=", MARK]
media = st.tuples(st.sampled_from([*types, openmetrics]), st.sampled_from(parameters)).map("".join)
accepts = st.one_of(st.just(""), st.lists(media, max_size=40).map(",".join), latin)
authorizations = st.one_of(
    st.just(""),
    st.sampled_from(
        [f"Bearer {TOKEN}", f"Bearer {MARK}", "Bearer", "Basic YTpi", f"Bearer  {TOKEN}x"]
    ),
    latin,
)
forwarded = st.one_of(
    st.just(""),
    st.lists(
        st.sampled_from(["10.0.0.1", "192.0.2.1", "[::1]:80", "unknown", MARK, ""]), max_size=50
    ).map(",".join),
    latin,
)
peers = st.sampled_from(["127.0.0.1", "10.0.0.1", "192.0.2.1", "::1", "", "testclient", MARK])
methods = st.one_of(
    st.sampled_from(["GET"] * 12 + ["HEAD"] * 4 + ["POST", "PUT", "OPTIONS", "TRACE", "get", ""]),
    st.text("ABCZ!#$%&'*+-.^_`|~", max_size=12),  # what a server lets through as a method
    marked,
)
# Headers that others heed, and any at all.
headers_at_will = st.dictionaries(
    st.one_of(
        st.sampled_from([
            "Host", "Cookie", "Content-Length", "Transfer-Encoding",
            "Range", "If-Match", "If-Modified-Since", "Expect", "Content-Type",
            "Forwarded", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-HTTP-Method-Override",
            "X-Original-URL", "X-Real-IP", "Accept-Encoding", "Accept-Language", "Origin",
        ]),
        st.text("abcxyz-09", min_size=1, max_size=12),
    ),
    st.one_of(latin, st.sampled_from(["bytes=0-1", "DELETE", "gzip", "*", "10.0.0.1"])),
    max_size=5,
)  # fmt: skip

SENT = {
    "state": st.sampled_from(["okay", "failing"]),
    "show": st.sampled_from(["summary", "names", "full"]),
    "method": methods,
    "path": paths,
    "query": queries,
    "accept": accepts,
    "authorization": authorizations,
    "forwarded_for": forwarded,
    "match": latin,
    "others": headers_at_will,
    "peer": peers,
}

HEALTHS = {"okay": healthy(max_age=3600), "failing": failing(max_age=3600)}


def options(show: str) -> dict[str, Any]:
    return {
        "show": show,
        "authorize": [Token(TOKEN), Networks("10.0.0.0/8", proxies=["192.0.2.0/24", "unix"])],
    }


def no_app(*_: object) -> Iterable[bytes]:
    pytest.fail("this was for the endpoint")


def asked_by_asgi(health: Health, show: str) -> Callable[..., Answer]:
    app = asgi.HealthMiddleware(no_app, health, **options(show))  # type: ignore[arg-type]  # never called

    def ask(method: str, path: str, query: str, headers: dict[str, str], peer: str) -> Answer:
        exchange = AsgiExchange()
        scope = http_scope(method, headers=headers, peer=peer)
        scope |= {"path": path, "query_string": query.encode("latin-1", "replace")}

        async def receive() -> dict[str, Any]:
            raise AssertionError("a body is of no interest")

        if "fresh" in query:
            anyio.run(app, scope, receive, _quick(exchange))
            return exchange.answer()
        coroutine: Any = app(scope, receive, _quick(exchange))
        # All else is in memory, and so it never waits: no event loop is needed.
        with pytest.raises(StopIteration):
            coroutine.send(None)
        return exchange.answer()

    return ask


def _quick(exchange: AsgiExchange) -> Any:
    async def send(message: Any) -> None:
        exchange.messages.append(message)

    return send


def asked_by_wsgi(health: Health, show: str) -> Callable[..., Answer]:
    app = wsgi.HealthMiddleware(no_app, health, **options(show))

    def ask(method: str, path: str, query: str, headers: dict[str, str], peer: str) -> Answer:
        environ = environ_for(method, "/", headers=headers, peer=peer)
        environ["PATH_INFO"] = path.encode("utf-8", "replace").decode("latin-1")
        environ["QUERY_STRING"] = query
        environ["wsgi.input"] = None  # a body is of no interest
        return WsgiExchange().serve(app, environ)

    return ask


ASKED = {
    (interface, state, show): ask(health, show)
    for interface, ask in (("asgi", asked_by_asgi), ("wsgi", asked_by_wsgi))
    for state, health in HEALTHS.items()
    for show in ("summary", "names", "full")
}


def run_everything() -> None:
    for health in HEALTHS.values():
        for name in (*health.groups, *health.checks):
            health.run_sync(name)


@pytest.fixture(scope="module", autouse=True)
def everything_has_run() -> Iterator[None]:
    run_everything()
    yield
    kept = bytes_held(ASKED)
    print(f"kept at the end: {kept / 2**20:.1f} MiB")
    assert kept < KEPT_BYTES


def bytes_held(root: object) -> int:
    """Return the size of `root` and of all that it holds, but for code."""
    seen: dict[int, object] = {}
    todo = [root]
    while todo:
        one = todo.pop()
        if id(one) not in seen and not isinstance(one, type | ModuleType):
            seen[id(one)] = one
            held = one.__closure__ if isinstance(one, FunctionType) else gc.get_referents(one)
            todo.extend(held or ())
    return sum(map(sys.getsizeof, seen.values()))


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(**SENT)
def test_nothing_that_is_sent_does_harm(  # noqa: PLR0917 - Hypothesis gives them by name
    interface: str,
    state: str,
    show: str,
    method: str,
    path: str,
    query: str,
    accept: str,
    authorization: str,
    forwarded_for: str,
    match: str,
    others: dict[str, str],
    peer: str,
) -> None:
    headers = others | {
        "Accept": accept,
        "Authorization": authorization,
        "X-Forwarded-For": forwarded_for,
        "If-None-Match": match,
    }
    sent = {name: value for name, value in headers.items() if value}
    began = time.thread_time()
    answer = ASKED[interface, state, show](method, f"/health_check{path}", query, sent, peer)

    assert time.thread_time() - began < CPU_SECONDS
    event(f"{answer.status}")
    assert answer.status in CODES
    held = f"{answer.headers}{answer.body.decode()}"
    assert not ECHO.search(held)
    assert PASSWORD not in held
    assert TOKEN not in held
    assert len(answer.body) < 100_000
    for name, value in answer.headers:
        assert (name + value).isprintable()
        assert value.isascii()
    assert answer["vary"] == "Accept"
    assert answer["cache-control"] == "no-store"
    if "health-status" not in answer:
        assert answer.status in {400, 401, 403, 404, 405, 429}
        assert answer.status != 429 or "retry-after" in answer
        assert len(answer.body) < 200
    elif answer.status == 200 and "version=" not in answer["content-type"]:
        # Metrics come with 200 whatever they say; of all else it is a pass.
        assert answer["health-status"] in {"okay", "degraded"}
        if answer["content-type"] == "text/plain; charset=utf-8" and method == "GET":
            assert answer.body.startswith(b"OKAY")
    assert (answer.status == 405) == (method not in {"GET", "HEAD"})
    assert method != "HEAD" or not answer.body
    authorised = TOKEN in authorization or "10.0.0.1" in (peer, *forwarded_for.split(","))
    if show != "full" and not authorised:
        assert not [secret for secret in PRIVATE if secret in held]
