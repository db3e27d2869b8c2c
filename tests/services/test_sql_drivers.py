"""The probes by a driver of its own, against real PostgreSQL and MariaDB servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncmy
import asyncmy.errors
import asyncpg  # type: ignore[import-untyped] # it has no types
import django.db
import psycopg
import psycopg_pool
import pymysql
import pytest

from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import (
    AsyncmyProbe,
    AsyncpgProbe,
    PsycopgPoolProbe,
    PsycopgProbe,
    PyMySQLProbe,
)
from tests.probes.running import Runner
from tests.relay import Relay
from tests.services.servers import PASSWORD, MariaDB, PostgreSQL
from tests.services.sql_django import by_django, no_database_left
from tests.services.sql_view import PATIENCE, ServerView
from tests.waiting import InThread, foreign_threads, let_pass, until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from healthmw._probe import Probe

FAILURES = (
    ProbeFailedError,
    OSError,
    psycopg.Error,
    asyncpg.PostgresError,
    pymysql.err.MySQLError,
    asyncmy.errors.MySQLError,
    django.db.Error,
)
PROBES: dict[str, Any] = {
    "psycopg": PsycopgProbe,
    "psycopg in a thread": lambda dsn, **options: PsycopgProbe(
        psycopg_pool.ConnectionPool(dsn, open=False), **options
    ),
    "asyncpg": AsyncpgProbe,
    "pymysql": PyMySQLProbe,
    "asyncmy": AsyncmyProbe,
    "django": by_django,
}
SYNC = ["psycopg in a thread", "pymysql", "django"]


@dataclass(frozen=True)
class Database(ServerView):
    """A real server, and the probe of it by one driver."""

    kind: str

    def probe(self, password: str = PASSWORD, **options: Any) -> Probe:
        probe: Probe = PROBES[self.kind](self.dsn(password), **options)
        return probe

    def dsn(self, password: str = PASSWORD) -> str:
        if isinstance(self.server, MariaDB):
            return self.server.dsn(password=password).replace("+pymysql", "")
        return self.server.dsn(password=password)


@pytest.fixture
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(params=PROBES)
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    server = "mariadb" if "my" in request.param else "postgresql"
    with no_database_left():
        yield Database(request.getfixturevalue(server), request.param)


only_sync = pytest.mark.parametrize("database", SYNC, indirect=True)
only_async = pytest.mark.parametrize("database", [*PROBES.keys() - SYNC], indirect=True)


def passes_soon(run: Runner, probe: Probe) -> None:
    """Run a probe until it passes: a busy machine may need more than its time at first."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            run(probe)
        except ProbeTimeoutError:
            assert time.monotonic() < give_up
        else:
            return


def fails(run: Runner, probe: Probe) -> str:
    """Run a probe that must fail in time and keep the password to itself; return its words."""
    started = time.monotonic()
    with pytest.raises(FAILURES) as info:
        run(probe)
    assert time.monotonic() - started < PATIENCE
    shown = repr(probe)
    error: BaseException | None = info.value
    while error is not None:
        shown += f"{error}{error!r}"
        error = error.__cause__ or error.__context__
    assert PASSWORD not in shown
    return str(info.value)


def test_well_over_one_connection_without_a_transaction(database: Database, run: Runner) -> None:
    probe = database.probe()
    for _ in range(10):
        assert 0 < float(run(probe)["latency_seconds"]) < PATIENCE
    assert database.wait_for_clients(1) in (["idle"], ["Sleep"])
    run.close_probe(probe)
    database.wait_for_clients(0)
    run(probe)
    database.wait_for_clients(1)


def test_runs_at_once_share_the_one_connection(database: Database, run: Runner) -> None:
    run.together(database.probe(timeout=PATIENCE), 10)
    database.wait_for_clients(1)


def test_a_wrong_password(database: Database, run: Runner) -> None:
    words = fails(run, database.probe(password=f"not-{PASSWORD}"))
    assert "password authentication failed" in words or "Access denied" in words
    database.wait_for_clients(0)


def test_down_and_up_again(database: Database, run: Runner) -> None:
    probe = database.probe(timeout=PATIENCE)
    run(probe)
    database.server.kill()
    assert "refused" in fails(run, probe) or "Connect call failed" in fails(run, probe)
    database.server.start()
    run(probe)
    database.server.restart()
    run(probe)  # what was kept had died
    database.wait_for_clients(1)


def test_a_connection_that_was_cut_is_replaced(database: Database, run: Runner) -> None:
    probe = database.probe()
    run(probe)
    database.hang_up_on_all()
    run(probe)
    database.wait_for_clients(1)


def test_a_server_that_hangs(database: Database, run: Runner) -> None:
    threads = foreign_threads()
    probes = [database.probe(timeout=0.3) for _ in range(2)]
    passes_soon(run, probes[0])  # the other one is not yet connected
    database.server.pause()
    for probe in probes:
        assert fails(run, probe) == "no answer within 0.3 s"
    with pytest.raises(ProbeTimeoutError):
        run(probes[0])
    assert foreign_threads() <= threads
    database.server.resume()
    patient = database.probe(timeout=PATIENCE)  # it may have to catch up
    for probe in (patient, *probes):
        passes_soon(run, probe)
        run.close_probe(probe)
    database.wait_for_clients(0)


def test_psycopg_is_cancelled_without_a_second_connection(
    postgresql: PostgreSQL, run: Runner
) -> None:
    # By which it asks the server to cancel the query: one that hangs doesn't. Before libpq 17 it
    # waits for that with Python's lock held, and the process as a whole hangs too.
    with Relay(postgresql.port) as relay:
        dsn = postgresql.dsn().replace(f":{postgresql.port}", f":{relay.port}")
        probe = PsycopgProbe(dsn, timeout=0.5)
        passes_soon(run, probe)
        taken = relay.taken()
        with relay.hangs():
            assert fails(run, probe) == "no answer within 0.5 s"
            assert relay.taken() == taken
        run.close_probe(probe)


def test_closing_while_the_server_hangs_is_bounded(database: Database, run: Runner) -> None:
    probe = database.probe()
    run(probe)
    database.server.pause()
    started = time.monotonic()
    run.close_probe(probe)
    assert time.monotonic() - started < PATIENCE
    database.server.resume()
    database.wait_for_clients(0)


def test_closing_during_a_run_closes_the_connection_afterwards(
    database: Database, run: Runner
) -> None:
    probe = database.probe(timeout=PATIENCE)
    run(probe)
    database.server.pause()
    run.close_during(probe, then=database.server.resume)
    database.wait_for_clients(0)


@only_async
def test_new_loops_leave_no_connections(database: Database) -> None:
    probe = database.probe()
    for _ in range(3):
        other = Runner()
        other.run(probe())
        other.close()  # without closing the probe: the end of the loop does that
    database.wait_for_clients(0)


FORK = """
import json, os, sys
from tests.services.test_sql_drivers import PROBES

probe = PROBES[sys.argv[1]](os.environ["DSN"])
probe()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    probe()
    probe()
    os.write(writer, b"ok")
    sys.exit(0)  # a whole exit, which finds all that the child inherited
status = os.waitpid(child, 0)[1]
kept = probe._{kept}._slots.get().connection
probe()
same = probe._{kept}._slots.get().connection is kept
print(json.dumps([status, os.read(reader, 9).decode(), same]))
probe._{kept}.close()
"""


@only_sync  # a loop does not survive a fork
def test_a_fork_leaves_the_parents_connection_alone(database: Database) -> None:
    kept = {"psycopg in a thread": "sync", "pymysql": "kept", "django": "own._kept"}
    code = FORK.format(kept=kept[database.kind])
    done = subprocess.run(
        [sys.executable, "-c", code, database.kind],
        env={**os.environ, "DSN": database.dsn()},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.stderr.decode() == ""
    assert json.loads(done.stdout) == [0, "ok", True]
    database.wait_for_clients(0)


# The app's pool


@dataclass(frozen=True)
class AppPool:
    """A pool of the app's, with one connection open that names itself."""

    pool: Any
    probe: Any

    async def close(self) -> None:
        closing = self.pool.close()
        await (closing if closing is not None else self.pool.wait_closed())


async def psycopg_pool_of(dsn: str) -> AppPool:
    async def configure(connection: psycopg.AsyncConnection) -> None:
        row = await (await connection.execute("SELECT 'shop'")).fetchone()
        assert row is not None
        await connection.execute(f"SET application_name = '{row[0]}'")
        await connection.commit()

    async def settings() -> dict[str, object]:
        return {"options": "-c lock_timeout=7s"}

    takes_functions = not psycopg_pool.__version__.startswith("3.2.")  # for its settings
    pool: psycopg_pool.AsyncConnectionPool[Any]
    pool = psycopg_pool.AsyncConnectionPool(
        dsn,
        min_size=1,
        max_size=1,
        open=False,
        kwargs=settings if takes_functions else await settings(),
        configure=configure,
    )
    await pool.open(wait=True)
    return AppPool(pool, PsycopgProbe(pool))


async def asyncpg_pool_of(dsn: str) -> AppPool:
    async def init(connection: asyncpg.Connection) -> None:
        await connection.execute("SET application_name = 'shop'")

    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=1, init=init)
    return AppPool(pool, AsyncpgProbe(pool))


@pytest.mark.parametrize("make", [psycopg_pool_of, asyncpg_pool_of])
def test_postgresql_as_the_apps_pool_reaches_it(make: Any, postgresql: Any, run: Runner) -> None:
    view = ServerView(postgresql)
    names = "SELECT application_name FROM pg_stat_activity WHERE datname IS NOT NULL"
    app: AppPool = run.run(make(postgresql.dsn()))
    run(app.probe)
    view.wait_for_clients(2)
    assert view.ask(names).count("shop") == 2
    run.close_probe(app.probe)
    view.wait_for_clients(1)
    run.run(app.close())
    run(app.probe)  # it has never used the pool itself
    view.wait_for_clients(1)


def test_postgresql_as_the_apps_pool_in_threads_reaches_it(postgresql: Any, run: Runner) -> None:
    view = ServerView(postgresql)

    def configure(connection: psycopg.Connection[Any]) -> None:
        row = connection.execute("SELECT 'shop'").fetchone()
        assert row is not None
        connection.execute(f"SET application_name = '{row[0]}'")

    pool: psycopg_pool.ConnectionPool[Any]
    pool = psycopg_pool.ConnectionPool(
        postgresql.dsn, open=False, kwargs=lambda: {"autocommit": True}, configure=configure
    )
    run(PsycopgProbe(pool))
    assert view.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'shop'") != []
    view.wait_for_clients(1)


@pytest.mark.parametrize(
    "kind",
    [
        psycopg_pool.ConnectionPool,
        psycopg_pool.AsyncConnectionPool,
        psycopg_pool.NullConnectionPool,
        psycopg_pool.AsyncNullConnectionPool,
    ],
)
def test_it_grows_no_older_than_those_of_the_apps_pool(
    kind: Any, postgresql: PostgreSQL, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def configure(connection: object) -> None:
        opened.append(connection)

    async def configure_async(connection: object) -> None:
        opened.append(connection)

    is_async = kind.__name__.startswith("Async")
    pool = kind(
        postgresql.dsn(),
        open=False,
        max_lifetime=60.0,
        configure=configure_async if is_async else configure,
    )
    probe = PsycopgProbe(pool)
    for _ in range(2):
        run(probe)
    assert len(opened) == 1
    let_pass(61.0, monkeypatch)
    for _ in range(2):
        run(probe)
    assert len(opened) == 2
    ServerView(postgresql).wait_for_clients(1)


def test_what_the_app_does_to_each_connection_may_fail(postgresql: Any, run: Runner) -> None:
    def refuse(_connection: object) -> None:
        raise LookupError("no such search path")

    async def refuse_async(_connection: object) -> None:
        refuse(None)

    async def asyncpg_pool() -> asyncpg.Pool:
        return await asyncpg.create_pool(
            host="127.0.0.1", port=postgresql.port, user=postgresql.user, password=PASSWORD,
            database="postgres", min_size=0, init=refuse_async,
        )  # fmt: skip

    where = f"{postgresql.dsn()}?hostaddr=127.0.0.1"
    sync: Any = psycopg_pool.ConnectionPool(where, open=False, configure=refuse)
    other: Any = psycopg_pool.AsyncConnectionPool(where, open=False, configure=refuse_async)
    pool = run.run(asyncpg_pool())
    for probe in (PsycopgProbe(sync), PsycopgProbe(other), AsyncpgProbe(pool)):
        with pytest.raises(LookupError, match="no such search path"):
            run(probe)
    assert repr(AsyncpgProbe(pool)) == f"<AsyncpgProbe 127.0.0.1:{postgresql.port}>"
    ServerView(postgresql).wait_for_clients(0)
    run.run(pool.close())


def test_mariadb_as_the_apps_pool_reaches_it(mariadb: MariaDB, run: Runner) -> None:
    view = ServerView(mariadb)

    async def make() -> AppPool:
        pool = await asyncmy.create_pool(
            minsize=1, maxsize=1, host="127.0.0.1", port=mariadb.port, user=mariadb.user,
            password=PASSWORD, init_command="SET NAMES utf8mb4",
        )  # fmt: skip
        return AppPool(pool, AsyncmyProbe(pool))

    app = run.run(make())
    run(app.probe)
    view.wait_for_clients(2)
    run.run(app.close())
    view.wait_for_clients(1)
    assert PASSWORD not in repr(app.probe)


def test_mariadb_over_its_unix_socket(mariadb: MariaDB, run: Runner) -> None:
    url = f"mysql://{mariadb.user}:{PASSWORD}@localhost/app?unix_socket={mariadb.folder / 's'}"
    for kind in (PyMySQLProbe, AsyncmyProbe):
        run(kind(url))


def test_the_room_in_a_psycopg_pool(postgresql: Any, run: Runner) -> None:
    pool: psycopg_pool.ConnectionPool[Any]
    with psycopg_pool.ConnectionPool(postgresql.dsn(), min_size=1, max_size=2) as pool:
        pool.wait(PATIENCE)
        probe = PsycopgPoolProbe(pool)
        assert dict(run(probe)) == {
            "pool_size": 1,
            "pool_in_use": 0,
            "pool_waiting": 0,
            "pool_limit": 2,
        }
        with pool.connection(), pool.connection():
            degraded, _ = run.outcome(probe)
            assert degraded == "the app's pool is exhausted: 2 of 2 in use"
            waiting = InThread(pool.getconn)
            until_sync(lambda: run.outcome(probe)[1]["pool_waiting"] == 1)
        pool.putconn(waiting.result())
        until_sync(lambda: run.outcome(probe)[0] is None)
    with pytest.raises(ProbeFailedError, match="the app's pool is closed"):
        run(probe)
    ServerView(postgresql).wait_for_clients(0)
