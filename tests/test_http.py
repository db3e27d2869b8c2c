"""What the endpoint answers, which is the same through ASGI and WSGI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from healthmw import Degraded, Health
from healthmw.testing import ManualClock
from tests.transports import TRANSPORTS, Answer, Transport

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "s3cr3t-in-the-exception"
REFUSED = {"degraded", "unknown", "failed"}


@pytest.fixture(params=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> Transport:
    return TRANSPORTS[request.param]


def well() -> None:
    """Be a probe that passes."""


def broken() -> None:
    raise OSError(SECRET)


def weak() -> Degraded:
    return Degraded(SECRET)


async def endless() -> None:
    await anyio.sleep_forever()


def healthy() -> Health:
    health = Health(release="v42")
    health.add("database", well)
    return health


def assert_consistent(answer: Answer, method: str = "GET") -> None:
    """Body, code and header never disagree, and never tell more than they should."""
    passes = answer.status < 300
    # A group may refuse what is degraded; the others leave no choice.
    assert answer["health-status"] in ({"okay", "degraded"} if passes else REFUSED)
    if method == "HEAD":
        assert answer.body == b""
    else:
        assert answer["content-length"] == str(len(answer.body))
        assert (answer.body == b"OKAY") is passes
        assert answer.body.startswith(b"FAILED: ") is not passes
    assert answer["cache-control"] == "no-store"
    assert answer["content-type"] == "text/plain; charset=utf-8"
    assert SECRET not in repr(answer)


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "/health_check",
        "/health_check/",
        "/health_check/ready",
        "/health_check/ready/",
        "/health_check/live",
        "/health_check/startup",
        "/health_check/release",
        "/health_check/database",
        "/health_check/database/",
    ],
)
def test_every_group_and_check_has_a_path(transport: Transport, path: str) -> None:
    answer = transport.ask(transport.middleware(healthy()), path)

    assert (answer.status, answer.body) == (200, b"OKAY")
    assert_consistent(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/health_check/nothing",
        "/health_check/ready/database",
        "/health_check/ready/ready",
        "/health_check/READY",
        "/health_check/database ",
        "/health_check/../health_check",
        "/health_check/datenbänke",
        "/health_check/.",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_unknown_name_is_not_found(transport: Transport, path: str, method: str) -> None:
    answer = transport.ask(transport.middleware(healthy()), path, method)

    assert answer.status == 404
    assert b"OKAY" not in answer.body
    assert "health-status" not in answer
    assert answer["cache-control"] == "no-store"
    assert method == "HEAD" or answer["content-length"] == str(len(answer.body))
    assert (answer.body == b"") is (method == "HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health_checks",
        "/health_check.json",
        "/health_checkready",
        "/api/health_check",
        "/docs/health_check/ready",
        "//health_check",
        "/HEALTH_CHECK",
        "/health",
    ],
)
def test_other_paths_are_the_apps(transport: Transport, path: str) -> None:
    assert transport.ask(transport.middleware(healthy()), path).status == 418


def test_the_path_can_be_chosen(transport: Transport) -> None:
    app = transport.middleware(healthy(), path="/internal/up/")

    assert transport.ask(app, "/internal/up").body == b"OKAY"
    assert transport.ask(app, "/internal/up/live").body == b"OKAY"
    assert transport.ask(app, "/internal").status == 418
    assert transport.ask(app, "/health_check").status == 418


@pytest.mark.parametrize(
    "path",
    ["", "/", "//", "health_check", "/a b", "/a?b", "/a#b", "/a%20b", "/a//b", "/prüfung", "/a\n"],
)
@pytest.mark.parametrize("kind", ["middleware", "app"])
def test_a_path_that_is_none_is_refused(transport: Transport, path: str, kind: str) -> None:
    with pytest.raises(ValueError, match="path="):
        getattr(transport, kind)(healthy(), path=path)


@pytest.mark.parametrize("kind", ["middleware", "app"])
def test_what_is_no_health_is_refused(transport: Transport, kind: str) -> None:
    wrong: Any = object()
    with pytest.raises(ValueError, match="health must be a Health, not object"):
        getattr(transport, kind)(wrong)


def test_a_path_of_another_type_is_refused(transport: Transport) -> None:
    options: dict[str, Any] = {"path": b"/health_check"}

    with pytest.raises(TypeError, match="path must be a str, not bytes"):
        transport.middleware(healthy(), **options)


# Mounted


@pytest.mark.parametrize("root_path", ["/api", "/api/v1", "/health_check"])
def test_the_middleware_answers_below_where_it_is_mounted(
    transport: Transport, root_path: str
) -> None:
    app = transport.middleware(healthy())

    assert transport.ask(app, "/health_check", root_path=root_path).body == b"OKAY"
    assert transport.ask(app, "/health_check/live", root_path=root_path).body == b"OKAY"
    assert transport.ask(app, "/health_check/nothing", root_path=root_path).status == 404
    assert transport.ask(app, "/other", root_path=root_path).status == 418


@pytest.mark.parametrize("root_path", ["", "/api", "/health_check", "/up"])
def test_the_app_answers_at_its_mount_and_at_its_path(transport: Transport, root_path: str) -> None:
    app = transport.app(healthy())

    for path in ("", "/", "/live", "/database/", "/health_check", "/health_check/live"):
        if (root_path, path) != ("", ""):  # no server sends an empty path
            assert transport.ask(app, path, root_path=root_path).body == b"OKAY", path
    for path in ("/nothing", "/health_check/nothing", "/live/nothing", "/api/live"):
        assert transport.ask(app, path, root_path=root_path).status == 404, path


# Methods


@pytest.mark.parametrize("path", ["/health_check", "/health_check/live", "/health_check/nothing"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"])
def test_other_methods_are_refused(transport: Transport, path: str, method: str) -> None:
    ran = []
    health = Health()
    health.add("database", lambda: ran.append(1))

    if method == "get" and transport is TRANSPORTS["wsgi"]:
        with pytest.warns(match="Unknown REQUEST_METHOD"):
            answer = transport.ask(transport.middleware(health), path, method)
    else:
        answer = transport.ask(transport.middleware(health), path, method)

    assert answer.status == 405
    assert answer["allow"] == "GET, HEAD"
    assert answer["content-length"] == str(len(answer.body))
    assert answer["cache-control"] == "no-store"
    assert not ran


@pytest.mark.parametrize("probe", [well, broken, weak])
@pytest.mark.parametrize("path", ["/health_check", "/health_check/release", "/health_check/it"])
def test_head_has_the_headers_of_get_and_no_body(
    transport: Transport, probe: Callable[[], Any], path: str
) -> None:
    health = Health(release="v42", max_age=60)
    health.add("it", probe)
    app = transport.middleware(health)

    for query in ("", "verbose"):
        get = transport.ask(app, path, query=query)
        for _ in range(2):  # the second one from memory
            head = transport.ask(app, path, "HEAD", query=query)
            assert head.body == b""
            assert (head.status, head.headers) == (get.status, get.headers)


# Verdicts: section 3's table

PROBES: dict[str, Callable[[Health], object]] = {
    "okay": lambda health: health.add("it", well, groups=["mine", "live"]),
    "degraded": lambda health: health.add("it", weak, groups=["mine", "live"]),
    "unknown": lambda health: health.add(
        "it", endless, groups=["mine", "live"], interval=60, timeout=3600
    ),
    "failed": lambda health: health.add("it", broken, groups=["mine", "live"]),
    "not critical": lambda health: health.add(
        "it", broken, critical=False, groups=["mine", "live"]
    ),
    "not critical, unknown": lambda health: health.add(
        "it", endless, critical=False, groups=["mine", "live"], interval=60
    ),
}

TABLE = {
    ("okay", "/ready"): (200, "okay", b"OKAY"),
    ("okay", "/release"): (200, "okay", b"OKAY"),
    ("okay", "/it"): (200, "okay", b"OKAY"),
    ("degraded", "/ready"): (200, "degraded", b"OKAY"),
    ("degraded", "/release"): (503, "degraded", b"FAILED: it (degraded)"),
    ("degraded", "/it"): (200, "degraded", b"OKAY"),
    ("unknown", "/ready"): (503, "unknown", b"FAILED: it (never_run)"),
    ("unknown", "/release"): (503, "unknown", b"FAILED: it (never_run)"),
    ("unknown", "/it"): (503, "unknown", b"FAILED: it (never_run)"),
    ("failed", "/ready"): (503, "failed", b"FAILED: it (failed)"),
    ("failed", "/release"): (503, "failed", b"FAILED: it (failed)"),
    ("failed", "/it"): (503, "failed", b"FAILED: it (failed)"),
    ("not critical", "/ready"): (200, "degraded", b"OKAY"),
    ("not critical", "/release"): (503, "degraded", b"FAILED: it (failed)"),
    ("not critical", "/it"): (503, "failed", b"FAILED: it (failed)"),
    ("not critical, unknown", "/ready"): (200, "degraded", b"OKAY"),
    ("not critical, unknown", "/release"): (503, "degraded", b"FAILED: it (never_run)"),
    ("not critical, unknown", "/it"): (503, "unknown", b"FAILED: it (never_run)"),
}
for (_name, _path), _cell in list(TABLE.items()):
    if _path == "/ready":
        TABLE |= {(_name, alike): _cell for alike in ("", "/live", "/startup", "/mine")}


@pytest.mark.parametrize(("name", "path"), TABLE)
def test_body_code_and_header_agree_in_every_cell(
    transport: Transport, name: str, path: str
) -> None:
    health = Health(max_age=60)
    health.group("mine")
    PROBES[name](health)
    app = transport.middleware(health)

    for method in ("GET", "GET", "HEAD", "HEAD"):
        answer = transport.ask(app, f"/health_check{path}", method)
        status, word, body = TABLE[name, path]
        assert (answer.status, answer["health-status"]) == (status, word)
        assert answer.body == (body if method == "GET" else b"")
        assert answer["content-length"] == str(len(body))
        assert_consistent(answer, method)

    verbose = transport.ask(app, f"/health_check{path}", query="verbose")
    assert (verbose.status, verbose["health-status"]) == (status, word)
    assert verbose.body.splitlines()[0] == body


@pytest.mark.parametrize(
    ("codes", "path", "cell"),
    [
        ({"degraded": 429}, "", (429, "degraded", b"FAILED: it (degraded)")),
        ({"degraded": 429}, "/live", (200, "okay", b"OKAY")),
        ({"failed": 500}, "", (200, "degraded", b"OKAY")),
        ({"okay": 201, "degraded": 299}, "", (299, "degraded", b"OKAY")),
    ],
)
def test_codes_of_the_users_own_change_the_body_too(
    transport: Transport, codes: dict[str, int], path: str, cell: tuple[int, str, bytes]
) -> None:
    health = Health()
    health.group("ready", codes=codes)
    health.add("it", weak)

    answer = transport.ask(transport.middleware(health), f"/health_check{path}")

    assert (answer.status, answer["health-status"], answer.body) == cell


@pytest.mark.parametrize("code", [204, 205])
def test_a_code_whose_response_has_no_body_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match=rf"codes\[okay\]={code}"):
        Health().group("ready", codes={"okay": code})


def test_without_any_check_only_live_passes(transport: Transport) -> None:
    app = transport.middleware(Health())

    for path in ("", "/ready", "/startup", "/release"):
        answer = transport.ask(app, f"/health_check{path}")
        assert (answer.status, answer["health-status"]) == (503, "unknown")
        assert answer.body == b"FAILED: no check is registered"
    assert transport.ask(app, "/health_check/live").body == b"OKAY"


def test_a_group_that_names_nothing_never_passes(transport: Transport) -> None:
    health = Health()
    health.add("database", well)
    health.group("mine")

    # Where there is a start-up, it is refused there: see `validate()`.
    answer = transport.ask(transport.middleware(health), "/health_check/mine")
    assert (answer.status, answer["health-status"]) == (503, "unknown")
    assert answer.body == b"FAILED: no check is registered"


def test_a_group_that_names_what_is_no_check_is_logged_once(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health(max_age=0)
    health.add("database", well)
    health.group("mine", checks=["database", "cahce"])
    app = transport.middleware(health)

    for _ in range(2):
        answer = transport.ask(app, "/health_check/mine")
        assert (answer.status, answer["health-status"]) == (503, "unknown")
    told = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert told == ["group 'mine' names 'cahce', which is no check"]


def test_what_is_at_fault_is_named_with_reason_codes(transport: Transport) -> None:
    health = Health()
    health.add("disk", weak)
    health.add("database", endless, timeout=0.01)
    health.add("mail", broken, critical=False)
    health.add("search", broken)
    health.add("cache", well)
    app = transport.middleware(health)

    assert transport.ask(app).body == b"FAILED: database (timeout), search (failed)"


def test_verbose_has_a_line_a_check(transport: Transport) -> None:
    health = Health()
    health.add("database", well)
    health.add("disk", weak)
    health.add("mail", broken, critical=False)
    health.add("cache", endless, interval=60, timeout=3600)

    answer = transport.ask(transport.middleware(health), query="verbose")

    first, *lines = answer.body.decode().splitlines()
    assert first == "FAILED: cache (never_run)"
    assert [line.partition(" (")[0] for line in lines] == [
        "[+] database okay",
        "[~] disk degraded",
        "[-] mail failed",
        "[?] cache unknown",
    ]
    assert "not critical" in lines[2]
    assert answer["content-length"] == str(len(answer.body))
    assert SECRET not in repr(answer)


@pytest.mark.parametrize(
    ("query", "verbose"),
    [
        ("verbose", True),
        ("verbose=1", True),
        ("verbose=true", True),
        ("verbose=", True),
        ("a=b&verbose", True),
        ("verbose=0", False),
        ("verbosely", False),
        ("a=verbose", False),
        ("%00=%ff&&&=", False),
        ("a" * 100_000, False),
    ],
)
def test_the_query_is_read_with_care(transport: Transport, query: str, *, verbose: bool) -> None:
    body = transport.ask(transport.middleware(healthy()), query=query).body

    assert body.startswith(b"OKAY\n[+] database" if verbose else b"OKAY")
    assert (body == b"OKAY") is not verbose


def test_the_release_is_in_every_verdict(transport: Transport) -> None:
    app = transport.middleware(healthy())

    for path in ("", "/live", "/release", "/database"):
        assert transport.ask(app, f"/health_check{path}")["health-release"] == "v42"
    health = Health()
    health.add("database", broken)
    assert "health-release" not in transport.ask(transport.middleware(health))


def test_a_multitude_of_failures_is_not_listed_without_end(transport: Transport) -> None:
    health = Health()
    for number in range(100):
        health.add(f"service-{number}", broken)

    body = transport.ask(transport.middleware(health)).body.decode()

    assert body.startswith("FAILED: service-0 (failed), service-1 (failed), ")
    assert body.endswith("service-19 (failed), and 80 more")


# What may be served from memory, and for how long


class Flaky:
    """A probe that is told what to do, and counts."""

    def __init__(self) -> None:
        self.ran = 0
        self.fails = False

    def __call__(self) -> None:
        self.ran += 1
        if self.fails:
            raise OSError(SECRET)


def test_a_verdict_is_served_from_memory_until_it_is_too_old(transport: Transport) -> None:
    probe, clock = Flaky(), ManualClock()
    health = Health(max_age=5, clock=clock)
    health.add("database", probe)
    app = transport.middleware(health)

    for _ in range(3):
        for method in ("GET", "HEAD"):
            for query in ("", "verbose", "nonce=1"):
                assert transport.ask(app, method=method, query=query).status == 200
    assert probe.ran == 1

    probe.fails = True
    clock.advance(4.9)
    assert transport.ask(app).body == b"OKAY"
    clock.advance(0.2)
    assert transport.ask(app).body == b"FAILED: database (failed)"
    assert transport.ask(app, method="HEAD").status == 503
    assert probe.ran == 2


def test_with_a_max_age_of_zero_nothing_is_kept(transport: Transport) -> None:
    probe = Flaky()
    health = Health(max_age=0)
    health.add("database", probe)
    app = transport.middleware(health)

    assert transport.ask(app).status == 200
    probe.fails = True
    assert transport.ask(app).status == 503
    probe.fails = False
    assert transport.ask(app).status == 200


def test_a_new_result_found_elsewhere_is_shown_at_once(transport: Transport) -> None:
    probe = Flaky()
    health = Health(max_age=3600)
    health.add("database", probe)
    health.add("other", well)
    app = transport.middleware(health)
    paths = ("", "/ready", "/release", "/database")

    assert {transport.ask(app, f"/health_check{path}").status for path in paths} == {200}
    probe.fails = True
    health.run_sync("database", fresh=True)
    assert {transport.ask(app, f"/health_check{path}").status for path in paths} == {503}
    assert transport.ask(app, "/health_check/other").status == 200
    probe.fails = False
    health.run_sync("database", fresh=True)
    assert {transport.ask(app, f"/health_check{path}").status for path in paths} == {200}


def test_draining_fails_ready_at_once_and_nothing_else(transport: Transport) -> None:
    health = Health(max_age=3600)
    health.add("database", well)
    app = transport.middleware(health)
    others = ("/live", "/startup", "/release", "/database")
    for path in ("", "/ready", *others):
        assert transport.ask(app, f"/health_check{path}").status == 200

    health.drain()

    for path in ("", "/ready"):
        for method in ("GET", "HEAD", "GET"):
            answer = transport.ask(app, f"/health_check{path}", method)
            assert (answer.status, answer["health-status"]) == (503, "failed")
            assert_consistent(answer, method)
        assert transport.ask(app, f"/health_check{path}").body == b"FAILED: draining"
    for path in others:
        assert transport.ask(app, f"/health_check{path}").status == 200
    assert transport.ask(app, "/").status == 418


def test_startup_once_passed_stays_passed(transport: Transport) -> None:
    probe = Flaky()
    probe.fails = True
    health = Health(max_age=0)
    health.add("database", probe)
    app = transport.middleware(health)

    assert transport.ask(app, "/health_check/startup").status == 503
    probe.fails = False
    assert transport.ask(app, "/health_check/startup").status == 200
    probe.fails = True
    assert transport.ask(app, "/health_check").status == 503
    assert transport.ask(app, "/health_check/startup").body == b"OKAY"


def test_a_check_that_is_registered_late_counts_at_once(transport: Transport) -> None:
    health = Health(max_age=3600)
    app = transport.middleware(health)
    assert transport.ask(app).body == b"FAILED: no check is registered"
    health.add("database", well)
    assert transport.ask(app).body == b"OKAY"
    assert transport.ask(app, "/health_check/search").status == 404
    health.add("search", broken)
    assert transport.ask(app).body == b"FAILED: search (failed)"
    assert transport.ask(app, "/health_check/search").status == 503


def test_a_middleware_of_two_transports_share_one_health() -> None:
    probe = Flaky()
    health = Health(max_age=3600)
    health.add("database", probe)

    for transport in TRANSPORTS.values():
        assert transport.ask(transport.middleware(health)).body == b"OKAY"
        assert transport.ask(transport.app(health)).body == b"OKAY"
    assert probe.ran == 1
