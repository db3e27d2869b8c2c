"""Real servers for the tests of this folder: started once a run, mended after each test.

A server whose program is missing skips its tests, and the end of the run says so plainly. Under
HEALTHMW_REQUIRE_SERVICES=1, as in CI, a missing server is a failure.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.programs import do_without
from tests.services.servers import MariaDB, MissingServerError, PostgreSQL, Redis, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

S = TypeVar("S", bound=Server)

_not_run: dict[str, list[str]] = defaultdict(list)


@pytest.fixture(scope="session")
def _servers() -> Iterator[dict[type[Server], Server | MissingServerError]]:
    started: dict[type[Server], Server | MissingServerError] = {}
    yield started
    for server in started.values():
        if isinstance(server, Server):
            server.close()


def _started(kind: type[Server]) -> Server | MissingServerError:
    try:
        server = kind()
    except MissingServerError as exc:
        return exc
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


@pytest.fixture
def lend(
    _servers: dict[type[Server], Server | MissingServerError], request: pytest.FixtureRequest
) -> Iterator[Callable[[type[S]], S]]:
    """Return what lends a test the run's own server of a kind, well and awake: `lend(Redis)`."""
    lent: list[Server] = []

    def borrow(kind: type[S]) -> S:
        if kind not in _servers:
            _servers[kind] = _started(kind)
        server = _servers[kind]
        if isinstance(server, MissingServerError):
            _not_run[str(server)].append(request.node.nodeid)
            do_without(server)
        assert isinstance(server, kind)
        lent.append(server)
        return server

    yield borrow
    for server in lent:
        server.mend()


@pytest.fixture
def postgresql(lend: Callable[[type[PostgreSQL]], PostgreSQL]) -> PostgreSQL:
    """A running PostgreSQL of this run's own."""
    return lend(PostgreSQL)


@pytest.fixture
def mariadb(lend: Callable[[type[MariaDB]], MariaDB]) -> MariaDB:
    """A running MariaDB of this run's own."""
    return lend(MariaDB)


@pytest.fixture
def redis_server(lend: Callable[[type[Redis]], Redis]) -> Redis:
    """A running Redis of this run's own."""
    return lend(Redis)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _not_run:
        return
    terminalreporter.section("tests that did not run, for want of a server")
    for reason, tests in _not_run.items():
        terminalreporter.line(f"{reason}: {len(tests)} test(s)")
        for test in tests:
            terminalreporter.line(f"  {test}")
