"""SQLAlchemyProbe against real PostgreSQL and MariaDB servers, through sync and async drivers."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped] # it has no types
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import HeadroomProbe, SQLAlchemyProbe
from tests.probes.running import Runner
from tests.relay import Relay
from tests.services.servers import PASSWORD, PostgreSQL
from tests.services.sql_view import PATIENCE, ServerView
from tests.waiting import foreign_threads, let_pass, until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILURES = (ProbeFailedError, OSError, asyncpg.PostgresError)


@dataclass(frozen=True)
class Database(ServerView):
    """A real server, and a driver to reach it by."""

    driver: str
    is_async: bool
    run: Runner

    async def connect(self) -> Any:
        """Connect by the async driver itself."""
        dsn = self.server.dsn()
        if self.driver == "asyncpg":
            return await asyncpg.connect(dsn)
        return await psycopg.AsyncConnection.connect(dsn)

    def engine(self, password: str = PASSWORD, **options: Any) -> sa.Engine | AsyncEngine:
        make = create_async_engine if self.is_async else sa.create_engine
        engine = make(self.server.dsn(self.driver, password), **options)
        self.run.finally_close(engine)
        return engine


@pytest.fixture
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


SYNC = ["psycopg", "pymysql"]
ASYNC = ["async psycopg", "asyncpg"]


@pytest.fixture(params=SYNC + ASYNC)
def database(request: pytest.FixtureRequest, run: Runner) -> Database:
    driver = request.param.removeprefix("async ")
    server = request.getfixturevalue("mariadb" if driver == "pymysql" else "postgresql")
    return Database(server, driver, request.param in ASYNC, run)


with_pg8000 = pytest.mark.parametrize("database", [*SYNC, "pg8000", *ASYNC], indirect=True)
only_sync = pytest.mark.parametrize("database", SYNC, indirect=True)
only_async = pytest.mark.parametrize("database", ASYNC, indirect=True)


def passes(run: Runner, probe: SQLAlchemyProbe) -> bool:
    """Tell whether a probe passes: a busy machine may need more than its time."""
    try:
        run(probe)
    except ProbeTimeoutError:
        return False
    return True


def fails(run: Runner, probe: SQLAlchemyProbe) -> str:
    """Run a probe that must fail in time and keep the password to itself; return its words."""
    started = time.monotonic()
    with pytest.raises(FAILURES) as info:
        run(probe)
    assert time.monotonic() - started < PATIENCE
    shown = ""
    error: BaseException | None = info.value
    while error is not None:
        shown += f"{error}{error!r}"
        error = error.__cause__ or error.__context__
    assert PASSWORD not in shown
    return str(info.value)


@with_pg8000
def test_well_over_one_connection_without_a_transaction(database: Database, run: Runner) -> None:
    probe = SQLAlchemyProbe(database.engine())
    before = database.clients()
    for _ in range(20):
        found = run(probe)
        assert 0 < float(found["latency_seconds"]) < PATIENCE
        assert (found["pool_in_use"], found["pool_limit"]) == (0, 15)
    assert before == []
    assert database.wait_for_clients(1) in (["idle"], ["Sleep"])
    run.close_probe(probe)
    database.wait_for_clients(0)
    run(probe)
    database.wait_for_clients(1)
    run.close_probe(probe)
    database.wait_for_clients(0)


def test_runs_at_once_share_the_one_connection(database: Database, run: Runner) -> None:
    probe = SQLAlchemyProbe(database.engine(), timeout=PATIENCE)
    run.together(probe, 10)
    database.wait_for_clients(1)


def test_the_apps_pool_is_not_touched(database: Database, run: Runner) -> None:
    engine = database.engine()
    app = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    run(SQLAlchemyProbe(engine))
    assert isinstance(app.pool, sa.QueuePool)
    assert (app.pool.checkedin(), app.pool.checkedout()) == (0, 0)


@pytest.mark.parametrize(
    ("options", "renewed"),
    [({}, False), ({"pool_recycle": 60}, True), ({"poolclass": sa.NullPool}, True)],
    ids=["kept for ever", "recycled", "opened for each use"],
)
def test_it_grows_no_older_than_the_apps(
    options: Any, renewed: bool, database: Database, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.engine(**options)
    opened = []
    app = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    sa.event.listen(app, "connect", lambda *_: opened.append(1))
    probe = SQLAlchemyProbe(engine)
    for _ in range(2):
        run(probe)
    let_pass(61.0, monkeypatch)
    assert len(opened) == 1
    for _ in range(2):
        run(probe)
    assert len(opened) == 1 + renewed
    database.wait_for_clients(1)


@pytest.mark.parametrize("database", [*SYNC, "pg8000"], indirect=True)
def test_what_is_closed_is_not_left_to_the_garbage_collector(
    database: Database, run: Runner
) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    closes_each = HeadroomProbe(database.engine(), processes=1, per_process=1)
    run(closes_each)
    gc.collect()
    gc.disable()
    try:
        before = open_files()
        for _ in range(3):
            run(closes_each)
        assert open_files() == before
    finally:
        gc.enable()


@only_sync
def test_the_one_connection_that_the_app_shares_is_left_alone(
    database: Database, run: Runner
) -> None:
    engine = database.engine(poolclass=sa.StaticPool)
    assert isinstance(engine, sa.Engine)
    with engine.connect() as app:
        app.execute(sa.text("CREATE TEMPORARY TABLE things (id INTEGER)"))
        app.commit()
        app.execute(sa.text("INSERT INTO things VALUES (1)"))
        run(SQLAlchemyProbe(engine))
        run(HeadroomProbe(engine, processes=1, per_process=1))
        assert app.scalar(sa.text("SELECT count(*) FROM things")) == 1


def test_through_the_apps_pool(database: Database, run: Runner) -> None:
    probe = SQLAlchemyProbe(database.engine(), connection="pool")
    for _ in range(5):
        run(probe)
    assert database.wait_for_clients(1) in (["idle"], ["Sleep"])


def test_refused(database: Database, run: Runner) -> None:
    probe = SQLAlchemyProbe(database.engine())
    database.server.kill()
    assert "refused" in fails(run, probe) or "Connect call failed" in fails(run, probe)
    database.server.start()
    run(probe)


def test_a_wrong_password(database: Database, run: Runner) -> None:
    probe = SQLAlchemyProbe(database.engine(password=f"not-{PASSWORD}"))
    words = fails(run, probe)
    assert "password authentication failed" in words or "Access denied" in words
    database.wait_for_clients(0)


@pytest.mark.parametrize("connection", ["own", "pool"])
def test_a_restart_of_the_server_goes_unnoticed(
    connection: Any, database: Database, run: Runner
) -> None:
    probe = SQLAlchemyProbe(database.engine(), connection=connection)
    for _ in range(2):
        run(probe)
        database.server.restart()
    run(probe)
    database.wait_for_clients(1)


@with_pg8000
def test_a_connection_that_was_cut_is_replaced(database: Database, run: Runner) -> None:
    probe = SQLAlchemyProbe(database.engine())
    run(probe)
    database.hang_up_on_all()
    run(probe)
    database.wait_for_clients(1)


@with_pg8000
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "not yet connected"])
def test_a_server_that_hangs(connected: Any, database: Database, run: Runner) -> None:
    threads = foreign_threads()
    probe = SQLAlchemyProbe(database.engine(), timeout=0.5)
    if connected:
        run(probe)
    database.server.pause()
    for _ in range(2):
        fails(run, probe)
    assert foreign_threads() <= threads
    database.server.resume()
    run(SQLAlchemyProbe(database.engine(), timeout=PATIENCE))  # it may have to catch up
    run(probe)
    run.close_probe(probe)


def test_psycopg_is_cancelled_without_a_second_connection(
    postgresql: PostgreSQL, run: Runner
) -> None:
    # See the test of this name of the driver's own probe.
    with Relay(postgresql.port) as relay:
        dsn = postgresql.dsn("psycopg").replace(f":{postgresql.port}", f":{relay.port}")
        engine = create_async_engine(dsn)
        run.finally_close(engine)
        run(SQLAlchemyProbe(engine, timeout=PATIENCE))  # the dialect gets to know the server
        probe = SQLAlchemyProbe(engine, timeout=0.5)
        until_sync(lambda: passes(run, probe))
        taken = relay.taken()
        with relay.hangs():
            assert fails(run, probe) == "no answer within 0.5 s"
            assert relay.taken() == taken


def test_a_hanging_server_in_the_apps_pool(database: Database, run: Runner) -> None:
    probe = SQLAlchemyProbe(database.engine(), connection="pool", timeout=0.5)
    until_sync(lambda: passes(run, probe))
    database.server.pause()
    assert fails(run, probe) == "no answer within 0.5 s"
    database.server.resume()
    run(SQLAlchemyProbe(database.engine(), timeout=PATIENCE))
    run(probe)


@with_pg8000
def test_what_is_opened_for_the_probe_in_the_apps_pool_gets_no_limits_of_the_probes(
    database: Database, run: Runner
) -> None:
    engine = database.engine(pool_size=1, max_overflow=0)
    probe = SQLAlchemyProbe(engine, connection="pool", timeout=1.0)
    until_sync(lambda: passes(run, probe))
    before = database.clients()
    sleep = sa.text("SELECT SLEEP(1.5)" if database.driver == "pymysql" else "SELECT pg_sleep(1.5)")

    async def ask(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            await connection.execute(sleep)

    if isinstance(engine, AsyncEngine):
        run.run(ask(engine))
    else:
        with engine.connect() as connection:
            connection.execute(sleep)
    assert len(before) == len(database.clients()) == 1  # it was the same one


def test_closing_while_the_server_hangs_is_bounded(database: Database, run: Runner) -> None:
    probe = SQLAlchemyProbe(database.engine(), timeout=0.5)
    until_sync(lambda: passes(run, probe))
    database.server.pause()
    started = time.monotonic()
    run.close_probe(probe)
    assert time.monotonic() - started < PATIENCE
    database.server.resume()
    database.wait_for_clients(0)


def test_closing_during_a_run_closes_the_connection_afterwards(
    database: Database, run: Runner
) -> None:
    probe = SQLAlchemyProbe(database.engine(), timeout=PATIENCE)
    run(probe)
    database.server.pause()
    run.close_during(probe, then=database.server.resume)
    database.wait_for_clients(0)


@with_pg8000
def test_a_slow_query_is_cut_off(database: Database, run: Runner) -> None:
    sleep = "SELECT pg_sleep(60)" if database.driver != "pymysql" else "SELECT SLEEP(60)"
    probe = SQLAlchemyProbe(database.engine(), query=sleep, timeout=0.5)
    assert fails(run, probe) == "no answer within 0.5 s"
    database.hang_up_on_all()  # the server sleeps on otherwise
    database.wait_for_clients(0)


def test_a_full_pool_is_degraded_and_the_database_still_looked_at(
    database: Database, run: Runner
) -> None:
    engine = database.engine(pool_size=2, max_overflow=1)
    probe = SQLAlchemyProbe(engine)
    for _ in range(3):
        run.take(engine)
    degraded, found = run.outcome(probe)
    assert degraded == "the app's pool is exhausted: 3 of 3 in use"
    assert {name: value for name, value in found.items() if name.startswith("pool_")} == {
        "pool_size": 2,
        "pool_in_use": 3,
        "pool_overflow": 1,
        "pool_limit": 3,
    }
    through = SQLAlchemyProbe(engine, connection="pool", timeout=0.3)
    assert "all 3 are in use" in fails(run, through)


def test_credentials_that_an_event_brings(database: Database, run: Runner) -> None:
    engine = database.engine(password="expired")
    app = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    probe = SQLAlchemyProbe(engine)

    @sa.event.listens_for(app, "do_connect")
    def token(_dialect: object, _record: object, _args: object, options: dict[str, Any]) -> None:
        options["password"] = PASSWORD

    run(probe)


ELSEWHERE = ["connect_args", "hosts", "do_connect", "made by do_connect", "creator"]


@pytest.mark.parametrize(
    ("database", "how"),
    [
        *((driver, how) for driver in ASYNC for how in ELSEWHERE),
        ("async psycopg", "hostaddr"),
    ],
    indirect=["database"],
)
def test_only_the_host_that_the_app_connects_to_need_have_a_name(
    how: str, database: Database, run: Runner
) -> None:
    options: dict[str, Any] = {}
    if how == "connect_args":
        options["connect_args"] = {"host": "127.0.0.1"}
    if how == "creator":
        options["async_creator"] = database.connect
    if how == "hostaddr":
        options["connect_args"] = {"hostaddr": "127.0.0.1"}
    here, gone = f"127.0.0.1:{database.server.port}", f"nowhere.invalid:{database.server.port}"
    instead = f"/postgres?host={gone}&host={here}" if how == "hosts" else f"{gone}/postgres"
    url = database.server.dsn(database.driver).replace(f"{here}/postgres", instead)
    engine = create_async_engine(url, **options)
    run.finally_close(engine)
    if "do_connect" in how:

        @sa.event.listens_for(engine.sync_engine, "do_connect")
        def elsewhere(dialect: Any, _record: object, args: Any, options: dict[str, Any]) -> Any:
            options["host"] = "127.0.0.1"
            return dialect.connect(*args, **options) if how.startswith("made") else None

    run(SQLAlchemyProbe(engine, timeout=PATIENCE))
    run(HeadroomProbe(engine, processes=1, timeout=PATIENCE))


@only_async
def test_new_loops_leave_no_connections(database: Database) -> None:
    probe = SQLAlchemyProbe(database.engine())
    for _ in range(3):
        other = Runner()
        other.run(probe())
        other.close()  # without closing the probe: the end of the loop does that
    database.wait_for_clients(0)


@pytest.mark.parametrize("database", ["pymysql"], indirect=True)  # psycopg asks for the id as well
def test_another_process_id_means_another_connection(
    database: Database, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = SQLAlchemyProbe(database.engine())
    run(probe)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    run(probe)
    database.wait_for_clients(1)  # here the driver closes the other; in a child it only forgets it
    run.close_probe(probe)
    database.wait_for_clients(0)


FORK = """
import gc, json, os, sys
import sqlalchemy as sa
from healthmw.probes import HeadroomProbe, SQLAlchemyProbe
from tests.waiting import foreign_threads

engine = sa.create_engine(os.environ["DSN"], poolclass=sa.NullPool)
probe = SQLAlchemyProbe(engine)
probe()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    for _ in range(int(os.environ["RUNS"])):
        probe()
    probe = engine = None
    gc.collect()
    os.write(writer, b"ok")
    sys.exit(0)  # a whole exit, which finds all that the child inherited
status = os.waitpid(child, 0)[1]
own = probe._sync.get()
kept = own._connection
probe()
print(json.dumps([status, os.read(reader, 9).decode(), own._connection is kept]))
"""


@only_sync  # a loop does not survive a fork
@pytest.mark.parametrize("runs", [2, 0], ids=["which probes", "which only ends"])
def test_a_fork_leaves_the_parents_connection_alone(runs: int, database: Database) -> None:
    dsn = database.server.dsn(database.driver)
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env={**os.environ, "DSN": dsn, "RUNS": str(runs)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == b""
    assert json.loads(done.stdout) == [0, "ok", True]
    database.wait_for_clients(0)
