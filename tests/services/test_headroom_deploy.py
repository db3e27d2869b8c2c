"""Two generations of an app on a PostgreSQL server for 20 connections: foretold and seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.boot import ROOT, Server
from tests.services.limits import SmallPostgreSQL
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psycopg

# A worker holds 3 connections in its pool at most and one of a probe's, a generation 8, two 16. Of
# the 20 places 17 are for such roles: there is room for one connection of somebody else's.
WORKERS = 2
POOL_SIZE = 2  # and an overflow of 1

APP = "tests.services.pooled_app:app"
GUNICORN = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--threads", "4"]
TOO_MANY = ("too many clients", "remaining connection slots are reserved", "too many connections")


class Stage:
    """A server, what is deployed to it, and somebody else who has connections there."""

    def __init__(self, server: SmallPostgreSQL, folder: Path, stack: ExitStack) -> None:
        self._server = server
        self._folder = folder
        self._stack = stack
        self._environ = {
            "DATABASE_URL": server.dsn_of("web", "psycopg"),
            "WEB_CONCURRENCY": str(WORKERS),
            "POOL_SIZE": str(POOL_SIZE),
        }
        self._log_began = len(server.log.read_text())
        self._others: list[psycopg.Connection] = []

    def others(self, number: int) -> None:
        """Have somebody else hold that many connections; one of them is the observer's."""
        self._others = [self._stack.enter_context(self._server.admin()) for _ in range(number)]

    def in_use(self) -> int:
        return self._server.sessions(self._others[0])

    def generation(self, name: str) -> Server:
        folder = self._folder / name
        folder.mkdir()
        server = Server([*GUNICORN, "--bind", "127.0.0.1:0", APP], folder, **self._environ)
        self._stack.callback(server.__enter__().kill)
        return server

    def rush(self, generation: Server) -> list[str]:
        """Have every worker use its whole pool; return the refusals that this met with."""
        seen: dict[str, str] = {}

        def asked_all() -> bool:
            pid, _, words = generation.get("/rush").body.decode().partition(" ")
            seen[pid] = min(seen.get(pid, words), words, key=lambda one: one == "hello")
            return len(seen) == WORKERS

        until_sync(asked_all)
        return [words for words in seen.values() if words != "hello"]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a release command of healthmw's, as the deploy does before it starts the release."""
        return subprocess.run(
            [sys.executable, "-m", "healthmw", *command],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self._environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def refused_by_the_server(self) -> list[str]:
        """Return the lines in the server's log that say that there was no room."""
        lines = self._server.log.read_text()[self._log_began :].splitlines()
        return [line for line in lines if any(words in line for words in TOO_MANY)]


@pytest.fixture
def stage(
    lend: Callable[[type[SmallPostgreSQL]], SmallPostgreSQL], tmp_path: Path
) -> Iterator[Stage]:
    server = lend(SmallPostgreSQL)
    with server.admin() as admin:
        until_sync(lambda: server.sessions(admin) == 1)
    with ExitStack() as stack:
        yield Stage(server, tmp_path, stack)


def foretold(generation: Server) -> dict[str, Any]:
    """Return the numbers that the app itself shows of the probe."""
    shown = json.loads(generation.get("/health_check/headroom?format=json").body)
    return {
        name.removeprefix("headroom:"): entries[0]["observedValue"]
        for name, entries in shown["checks"].items()
    }


def test_a_deploy_that_is_admitted_has_room_to_the_last_connection(stage: Stage) -> None:
    stage.others(1)
    old = stage.generation("old")
    before = foretold(old)
    assert stage.rush(old) == []
    assert foretold(old)["forecast"] == before["forecast"]  # a busy app is no other app

    smoke = stage.run("smoke", "--group", "release", "--", *GUNICORN, APP)
    assert smoke.returncode == 0, smoke.stdout + smoke.stderr
    until_sync(lambda: stage.in_use() == 9)  # the trial server has gone

    new = stage.generation("new")
    assert stage.rush(new) == []
    until_sync(lambda: stage.in_use() == before["forecast"] == 17)
    assert before["headroom"] == 0
    assert stage.refused_by_the_server() == []


def test_a_deploy_that_would_see_too_many_clients_is_refused(stage: Stage) -> None:
    stage.others(2)
    assert stage.rush(stage.generation("old")) == []

    check = stage.run("check", "--group", "release", "tests.services.pooled_app:health")
    assert check.returncode == 1
    assert "the forecast is 18" in check.stdout
    assert "1 too many" in check.stdout
    assert stage.refused_by_the_server() == []

    # And so it comes for who deploys all the same.
    (refusal,) = stage.rush(stage.generation("new"))
    assert "remaining connection slots are reserved" in refusal
    assert len(stage.refused_by_the_server()) == 1
    assert stage.in_use() == 17  # every place is taken
