"""SQLAlchemyProbe against SQLite, and against servers that misbehave in known ways."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import psycopg
import pytest
import sqlalchemy as sa
import trio
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from healthmw.exceptions import ProbeFailedError
from healthmw.probes import SQLAlchemyProbe
from healthmw.probes._sqlalchemy_own import OwnConnection
from tests.fakes import FakeServer, drip, garbage, reset, silent
from tests.waiting import foreign_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.probes.running import Runner

    AnyEngine = sa.Engine | AsyncEngine

PASSWORD = "s3cr3t-b4it"


def fill(path: Path) -> None:
    """Make a database with one table at `path`."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE things (id INTEGER)")
    connection.commit()
    connection.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    fill(path)
    return path


@pytest.fixture(params=["pysqlite", "aiosqlite"])
def engine(request: pytest.FixtureRequest, database: Path, run: Runner) -> Iterator[AnyEngine]:
    url = f"sqlite+{request.param}:///{database}"
    if request.param == "pysqlite":
        plain = sa.create_engine(url, pool_size=1, max_overflow=1)
        yield plain
        plain.dispose()
    else:
        engine = create_async_engine(
            url, poolclass=sa.AsyncAdaptedQueuePool, pool_size=1, max_overflow=1
        )
        yield engine
        run.run(engine.dispose())


# SQLAlchemy 2.1 does not bring greenlet, and its module of async engines can't be imported without.
WITHOUT_GREENLET = """
import sys
sys.modules["greenlet"] = None
import sqlalchemy
from healthmw import Health
from healthmw.probes import SQLAlchemyPoolProbe, SQLAlchemyProbe
engine = sqlalchemy.create_engine("sqlite:///app.db")
health = Health()
health.add("database", SQLAlchemyProbe(engine))
health.add("pool", SQLAlchemyPoolProbe(engine))
print(health.run_sync().status)
"""


def test_a_sync_engine_needs_no_greenlet(database: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_GREENLET],
        cwd=database.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "okay\n", run.stderr


NUMBERS = {"pool_size": 1, "pool_in_use": 0, "pool_overflow": 0, "pool_limit": 2}


def test_a_file_is_well(engine: AnyEngine, run: Runner) -> None:
    probe = SQLAlchemyProbe(engine)
    for _ in range(3):
        found = dict(run(probe))
        assert 0 <= float(found.pop("latency_seconds")) < 10
        assert found == NUMBERS
    assert probe.is_async is isinstance(engine, AsyncEngine)


@pytest.mark.parametrize("connection", ["own", "pool"])
def test_a_file_that_is_missing_is_noticed_and_not_created(
    connection: Any, engine: AnyEngine, database: Path, run: Runner
) -> None:
    probe = SQLAlchemyProbe(engine, connection=connection)
    run(probe)
    aside = database.with_suffix(".aside")
    database.rename(aside)
    for _ in range(2):
        with pytest.raises(ProbeFailedError, match="the database file does not exist"):
            run(probe)
    assert not database.exists()
    aside.rename(database)
    run(probe)


def test_a_file_that_was_never_there_is_not_created(tmp_path: Path, run: Runner) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(ProbeFailedError, match="does not exist"):
        run(SQLAlchemyProbe(sa.create_engine(f"sqlite:///{path}")))
    assert not path.exists()


def test_an_empty_file_is_no_database(engine: AnyEngine, database: Path, run: Runner) -> None:
    probe = SQLAlchemyProbe(engine)
    run(probe)
    os.truncate(database, 0)
    with pytest.raises(ProbeFailedError, match="the database file is empty"):
        run(probe)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_garbage_in_the_file_is_noticed(
    mode: str, engine: AnyEngine, database: Path, run: Runner
) -> None:
    connection = sqlite3.connect(database)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.close()
    probe = SQLAlchemyProbe(engine)
    run(probe)
    whole = database.read_bytes()
    database.write_bytes(b"garbage " * 1000)
    for _ in range(2):
        with pytest.raises(ProbeFailedError, match="file is not a database"):
            run(probe)
    database.write_bytes(whole)
    run(probe)


def test_a_directory_in_the_files_place(engine: AnyEngine, database: Path, run: Runner) -> None:
    database.unlink()
    database.mkdir()
    (database / "full").touch()
    with pytest.raises(ProbeFailedError, match="unable to open database file"):
        run(SQLAlchemyProbe(engine))


def test_a_locked_database_fails_in_time(engine: AnyEngine, database: Path, run: Runner) -> None:
    probe = SQLAlchemyProbe(engine, timeout=0.5)
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    with pytest.raises(ProbeFailedError, match=r"database is locked|no answer within 0\.5 s"):
        run(probe)
    assert time.monotonic() - started < 4.5  # the driver's own patience is 5 s
    writer.execute("COMMIT")
    writer.close()
    run(probe)


def test_a_file_named_by_a_uri(database: Path, run: Runner) -> None:
    engine = sa.create_engine(f"sqlite:///file:{database}?mode=rw&uri=true")
    probe = SQLAlchemyProbe(engine)
    run(probe)
    database.unlink()
    with pytest.raises(ProbeFailedError, match="does not exist"):
        run(probe)
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_memory_is_looked_at_through_the_apps_pool(url: str, run: Runner) -> None:
    engine = sa.create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE things (id INTEGER)"))
    run(SQLAlchemyProbe(engine, query="SELECT * FROM things"))
    engine.dispose()


def test_shared_memory_is_looked_at_through_the_apps_pool(run: Runner) -> None:
    url = "sqlite:///file:shared?mode=memory&cache=shared&uri=true&check_same_thread=false"
    engine = sa.create_engine(url, poolclass=sa.QueuePool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE things (id INTEGER)"))
    run(SQLAlchemyProbe(engine, query="SELECT * FROM things"))
    engine.dispose()


def test_memory_by_an_async_engine(run: Runner) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")

    async def create() -> None:
        async with engine.begin() as connection:
            await connection.execute(sa.text("CREATE TABLE things (id INTEGER)"))

    run.run(create())
    run(SQLAlchemyProbe(engine, query="SELECT * FROM things"))
    run.run(engine.dispose())


# The query


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM things",
        sa.select(sa.literal_column("id")).select_from(sa.text("things")),
        "UPDATE things SET id = 1",
    ],
)
def test_a_query_of_ones_own(query: Any, engine: AnyEngine, run: Runner) -> None:
    run(SQLAlchemyProbe(engine, query=query))


def test_a_query_that_fails(engine: AnyEngine, run: Runner) -> None:
    probe = SQLAlchemyProbe(engine, query="SELECT * FROM nowhere")
    for _ in range(2):
        with pytest.raises(ProbeFailedError, match=r"OperationalError: no such table: nowhere$"):
            run(probe)


# The app's pool


@pytest.fixture
def full(engine: AnyEngine, run: Runner) -> Iterator[AnyEngine]:
    """An engine all of whose connections are in use."""
    if isinstance(engine, AsyncEngine):
        taken = [run.run(_connect(engine)) for _ in range(2)]
        yield engine
        for connection in taken:
            run.run(connection.close())
    else:
        plain = [engine.connect() for _ in range(2)]
        yield engine
        for held in plain:
            held.close()


async def _connect(engine: AsyncEngine) -> Any:
    return await engine.connect()


def test_a_full_pool_is_degraded_with_its_numbers(full: AnyEngine, run: Runner) -> None:
    degraded, found = run.outcome(SQLAlchemyProbe(full))
    assert degraded == "the app's pool is exhausted: 2 of 2 in use"
    assert {**found, "latency_seconds": 0} == {
        "latency_seconds": 0,
        "pool_size": 1,
        "pool_in_use": 2,
        "pool_overflow": 1,
        "pool_limit": 2,
    }


def test_a_full_pool_fails_the_probe_that_is_to_use_it(full: AnyEngine, run: Runner) -> None:
    probe = SQLAlchemyProbe(full, connection="pool", timeout=0.3)
    started = time.monotonic()
    with pytest.raises(
        ProbeFailedError,
        match=r"no connection of the app's pool became free within 0\.3 s: all 2 are in use",
    ):
        run(probe)
    assert time.monotonic() - started < 10


def test_a_full_pool_with_less_patience_than_the_probe(database: Path, run: Runner) -> None:
    engine = sa.create_engine(f"sqlite:///{database}", pool_size=1, max_overflow=0)
    with engine.connect():
        probe = SQLAlchemyProbe(engine, connection="pool", timeout=0.2)
        with pytest.raises(ProbeFailedError, match="all 1 are in use"):
            run(probe)
    run(probe)
    engine.dispose()


def test_the_apps_connection_is_given_back(engine: AnyEngine, run: Runner) -> None:
    probe = SQLAlchemyProbe(engine, connection="pool")
    for _ in range(5):
        assert run(probe)["pool_in_use"] == 0


class ExhaustedPool(NullPool):
    """Gives no connection, though it has no numbers that say so."""

    def _do_get(self) -> Any:
        raise sa.exc.TimeoutError("no connection")


def test_a_pool_that_gives_no_connection(database: Path, run: Runner) -> None:
    engine = sa.create_engine(f"sqlite:///{database}", poolclass=ExhaustedPool)
    with pytest.raises(ProbeFailedError, match="the app's pool gave no connection"):
        run(SQLAlchemyProbe(engine, connection="pool"))


@pytest.mark.parametrize(
    "options",
    [{"poolclass": NullPool}, {"pool_size": 0}, {"pool_size": 1, "max_overflow": -1}],
)
def test_a_pool_without_a_limit_has_no_numbers(
    options: dict[str, Any], database: Path, run: Runner
) -> None:
    engine = sa.create_engine(f"sqlite:///{database}", **options)
    with engine.connect(), engine.connect(), engine.connect():
        assert set(run(SQLAlchemyProbe(engine))) == {"latency_seconds"}
    engine.dispose()


# Connections are opened as the app's are


@pytest.mark.parametrize("connection", ["own", "pool"])
def test_the_engines_own_schemas_are_asked(connection: Any, engine: AnyEngine, run: Runner) -> None:
    tenant = engine.execution_options(schema_translate_map={"tenant": None})
    things = sa.Table("things", sa.MetaData(), sa.Column("id", sa.Integer), schema="tenant")
    run(SQLAlchemyProbe(tenant, query=sa.select(things), connection=connection))


def test_the_engines_own_way_to_connect_is_used(database: Path, run: Runner) -> None:
    opened: list[int] = []
    thread = threading.get_ident()

    def creator() -> sqlite3.Connection:
        opened.append(threading.get_ident())
        return sqlite3.connect(database, check_same_thread=False)

    engine = sa.create_engine(f"sqlite:///{database}", creator=creator)
    prepared: list[Any] = []
    sa.event.listen(engine, "connect", lambda connection, _record: prepared.append(connection))
    run(SQLAlchemyProbe(engine))
    assert len(opened) == len(prepared) == 1
    assert thread not in opened
    engine.dispose()


def test_the_probes_limits_are_not_put_on_the_apps_connections(database: Path, run: Runner) -> None:
    seen: list[tuple[bool, object]] = []
    engine = sa.create_engine(f"sqlite:///{database}", connect_args={"timeout": 9})

    def listen(_dialect: object, _record: object, _args: object, options: dict[str, Any]) -> None:
        seen.append((threading.current_thread() is threading.main_thread(), options["timeout"]))

    probe = SQLAlchemyProbe(engine, timeout=0.5)
    run(probe)
    sa.event.listen(engine, "do_connect", listen)  # a late listener is heard all the same
    run(probe)
    engine.connect().close()
    run(probe)
    assert seen == [(False, 0.5), (True, 9), (False, 0.5)]
    engine.dispose()


def test_a_shorter_limit_of_the_apps_own_is_kept(database: Path, run: Runner) -> None:
    engine = sa.create_engine(f"sqlite:///{database}?timeout=0.25")
    probe = SQLAlchemyProbe(engine, timeout=5)
    run(probe)
    seen: list[object] = []

    def listen(_dialect: object, _record: object, _args: object, options: dict[str, Any]) -> None:
        seen.append(options["timeout"])

    sa.event.listen(engine, "do_connect", listen)
    run(probe)
    assert seen == [0.25]
    engine.dispose()


@pytest.mark.parametrize("late", [False, True], ids=["before the first run", "after it"])
def test_a_listener_may_make_the_connection(database: Path, run: Runner, *, late: bool) -> None:
    engine = sa.create_engine(f"sqlite:///{database}")
    probe = SQLAlchemyProbe(engine)
    if late:
        run(probe)
    made: list[sqlite3.Connection] = []

    @sa.event.listens_for(engine, "do_connect")
    def connect(*_: object) -> sqlite3.Connection:
        made.append(sqlite3.connect(database, check_same_thread=False))
        return made[-1]

    run(probe)
    assert len(made) == 1
    engine.dispose()


class OddConnection(sqlite3.Connection):
    """A driver's connection with attributes that look like a socket, and are none."""

    def fileno(self) -> int:
        raise OSError("none here")

    @property
    def _sock(self) -> Any:
        return self._file

    _file: Any = None


def test_a_driver_may_have_its_own_idea_of_a_file_number(database: Path, run: Runner) -> None:
    with database.open() as file:
        OddConnection._file = file
        engine = sa.create_engine(f"sqlite:///{database}", connect_args={"factory": OddConnection})
        probe = SQLAlchemyProbe(engine)
        run(probe)
        before = len(list(Path("/proc/self/fd").iterdir()))
        run(probe)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        engine.dispose()


class ShyConnection(sqlite3.Connection):
    """A driver's connection that shows no file number, and says so in its own way."""

    @property
    def fileno(self) -> Any:
        raise sqlite3.NotSupportedError("no file number")

    _sock = _usock = fileno


def test_a_driver_may_show_no_file_number(database: Path, run: Runner) -> None:
    engine = sa.create_engine(f"sqlite:///{database}", connect_args={"factory": ShyConnection})
    for connection in ("own", "pool"):
        run(SQLAlchemyProbe(engine, connection=connection))
    engine.dispose()


def test_another_process_id_is_no_trouble(
    database: Path, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(f"sqlite:///{database}")
    probe = SQLAlchemyProbe(engine)
    run(probe)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    run(probe)
    engine.dispose()


def test_a_connection_that_is_retired_at_the_very_end_of_a_run_is_closed() -> None:
    engine = sa.create_engine("sqlite://")
    own = OwnConnection(engine, timeout=20.0, once=False)
    with own.held(20.0):
        with own.use(time.monotonic() + 20):
            pass
        assert own.is_open
        own.retire()
    assert not own.is_open
    engine.dispose()


def test_listeners_are_called_once(database: Path, run: Runner) -> None:
    engine = sa.create_engine(f"sqlite:///{database}")
    calls: list[str] = []
    sa.event.listen(engine, "do_connect", lambda *_: calls.append("before"))
    probe = SQLAlchemyProbe(engine)
    run(probe)
    sa.event.listen(engine, "do_connect", lambda *_: calls.append("after"))
    run(probe)
    run(SQLAlchemyProbe(engine))
    assert calls == ["before", "before", "after", "before", "after"]
    engine.dispose()


def test_an_engine_and_its_copy_with_other_options(engine: AnyEngine, run: Runner) -> None:
    calls: list[None] = []
    app = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    sa.event.listen(app, "do_connect", lambda *_: calls.append(None))
    probes = [
        SQLAlchemyProbe(engine),
        SQLAlchemyProbe(engine.execution_options(isolation_level="AUTOCOMMIT")),
    ]
    for _ in range(2):
        for probe in probes:
            run(probe)
    assert len(calls) == 4


def test_runs_at_once_are_all_answered(engine: AnyEngine, run: Runner) -> None:
    assert len(run.together(SQLAlchemyProbe(engine, timeout=20), 8)) == 8


def test_runs_at_once_fail_together_in_time(database: Path, run: Runner) -> None:
    engine = sa.create_engine(f"sqlite:///{database}")
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    outcomes = run.together(SQLAlchemyProbe(engine, timeout=0.3), 3, return_exceptions=True)
    assert time.monotonic() - started < 10
    assert all(isinstance(outcome, ProbeFailedError) for outcome in outcomes)
    writer.close()
    engine.dispose()


# Options and words


@pytest.mark.parametrize("option", [{"writable": True}, {"max_replica_lag": 1.0}])
def test_sqlite_has_no_replicas(option: Any) -> None:
    with pytest.raises(ValueError, match="are for PostgreSQL, MySQL and MariaDB, not for sqlite"):
        SQLAlchemyProbe(sa.create_engine("sqlite://"), **option)


def test_the_repr_shows_no_credentials() -> None:
    engine = sa.create_engine(
        f"postgresql+psycopg://app:{PASSWORD}@db.internal:5432/shop?password={PASSWORD}"
    )
    assert repr(SQLAlchemyProbe(engine)) == (
        "<SQLAlchemyProbe postgresql+psycopg db.internal:5432/shop>"
    )


def test_a_password_in_the_drivers_words_is_masked(run: Runner) -> None:
    def creator() -> Any:
        raise psycopg.OperationalError(f"bad option in\n  password={PASSWORD} host=db")

    engine = sa.create_engine(f"postgresql+psycopg://app:{PASSWORD}@db/shop", creator=creator)
    with pytest.raises(ProbeFailedError) as info:
        run(SQLAlchemyProbe(engine))
    assert str(info.value) == "OperationalError: bad option in password=*** host=db"


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_name_that_does_not_resolve(driver: str, run: Runner) -> None:
    engine = create_async_engine(f"postgresql+{driver}://nowhere.invalid/shop")
    with pytest.raises(ProbeFailedError, match=r"can't resolve nowhere\.invalid"):
        run(SQLAlchemyProbe(engine))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"connection": "mine"}, "connection must be 'own' or 'pool', not 'mine'"),
        ({"timeout": 0}, "timeout=.* must be"),
    ],
)
def test_bad_options(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SQLAlchemyProbe(sa.create_engine("sqlite://"), **options)


def test_an_engine_is_wanted() -> None:
    with pytest.raises(TypeError, match="engine must be an Engine or AsyncEngine, not str"):
        SQLAlchemyProbe("sqlite://")  # type: ignore[arg-type] # the mistake under test


def test_an_async_engine_on_trio_is_told_what_to_do() -> None:
    probe = SQLAlchemyProbe(create_async_engine("sqlite+aiosqlite://"))
    with pytest.raises(ProbeFailedError, match="asyncio only; pass a sync Engine on trio"):
        trio.run(probe)  # type: ignore[arg-type] # async, because the engine is


def test_a_sync_engine_on_trio(database: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{database}")
    probe = SQLAlchemyProbe(engine)

    async def main() -> None:
        await anyio.to_thread.run_sync(probe)
        await probe.aclose()

    trio.run(main)
    engine.dispose()


# Servers that misbehave

DRIVERS = [
    "postgresql+psycopg",
    "async postgresql+psycopg",
    "postgresql+asyncpg",
    "postgresql+pg8000",
    "mysql+pymysql",
]


def make(driver: str, port: int, run: Runner) -> AnyEngine:
    name = driver.removeprefix("async ")
    url = f"{name}://app:{PASSWORD}@127.0.0.1:{port}/app"
    is_async = name != driver or name.endswith("asyncpg")
    return create_async_engine(url) if is_async else sa.create_engine(url)


@pytest.mark.parametrize("connection", ["own", "pool"])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("talk", [silent, garbage, reset], ids=["silent", "garbage", "reset"])
def test_a_server_that_is_no_server(talk: Any, driver: str, connection: Any, run: Runner) -> None:
    threads = foreign_threads()
    with FakeServer(talk) as server:
        engine = make(driver, server.port, run)
        probe = SQLAlchemyProbe(engine, connection=connection, timeout=0.5)
        started = time.monotonic()
        with pytest.raises((ProbeFailedError, OSError, KeyError)) as info:  # pg8000's word for it
            run(probe)
        assert time.monotonic() - started < 10
        assert PASSWORD not in f"{info.value!r}{info.value}"
        del info  # its traceback keeps the connection that failed
        gc.collect()  # psycopg leaves one that timed out in a cycle of references
        run.close_probe(probe)
        server.wait_until_left()
    assert foreign_threads() <= threads


@pytest.mark.parametrize("connection", ["own", "pool"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_server_that_answers_a_byte_at_a_time(driver: str, connection: Any, run: Runner) -> None:
    start = b"\xff\xff\x00\x00\x0a" if "mysql" in driver else b"R\x00\x00\xff\xff"
    with FakeServer(drip(start + b"\x00" * 60_000)) as server:
        engine = make(driver, server.port, run)
        probe = SQLAlchemyProbe(engine, connection=connection, timeout=0.5)
        started = time.monotonic()
        with pytest.raises((ProbeFailedError, OSError)):
            run(probe)
        assert time.monotonic() - started < 10


def test_a_file_that_is_given_up_while_it_opens_leaves_nothing_behind(tmp_path: Path) -> None:
    """aiosqlite can't be cancelled, and neither logs nor warns about what nobody waits for."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/db")
        probe: Any = SQLAlchemyProbe(engine)
        for number in range(30):
            with anyio.move_on_after(number / 1000):
                await probe()
        await probe()
        await probe.aclose()

    complaints: list[str] = []
    sqlite3.connect(tmp_path / "db").execute("CREATE TABLE things (id)").connection.close()
    asyncio.run(main())
    gc.collect()  # any warning is an error
    assert complaints == []
