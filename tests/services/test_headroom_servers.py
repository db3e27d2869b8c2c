"""HeadroomProbe's numbers against what real servers then do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest
import redis
import redis.asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import HeadroomProbe
from tests.probes.running import Runner
from tests.services.limits import SmallPostgreSQL, filled
from tests.services.servers import PASSWORD, MariaDB, Redis
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 15.0

# Of a release that needs nothing, the room forecast is all that the server has left.
NOTHING: dict[str, Any] = {
    "processes": 1, "per_process": 0, "beside_pool": 0, "timeout": PATIENCE,
}  # fmt: skip


@pytest.fixture
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture
def small(lend: Callable[[type[SmallPostgreSQL]], SmallPostgreSQL]) -> Iterator[SmallPostgreSQL]:
    """PostgreSQL with 20 places, of which this test holds none; its limits are taken away after."""
    server = lend(SmallPostgreSQL)
    wait_for_sessions(server, 0)
    yield server
    with server.admin() as admin:
        admin.execute("ALTER ROLE web CONNECTION LIMIT -1")
        admin.execute("ALTER DATABASE postgres CONNECTION LIMIT -1")


def wait_for_sessions(server: SmallPostgreSQL, number: int) -> None:
    with server.admin() as admin:
        until_sync(lambda: server.sessions(admin) == number + 1)


# PostgreSQL


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ("", ("max_connections (20, of which 3 reserved)", 3, 14)),
        ("ROLE web", ("the CONNECTION LIMIT of the role web", 2, 4)),
        ("DATABASE postgres", ("the CONNECTION LIMIT of the database postgres", 3, 3)),
    ],
)
def test_postgresql_takes_as_many_as_there_is_room_for(
    limit: str, found: tuple[str, int, int], small: SmallPostgreSQL, run: Runner
) -> None:
    if limit:
        with small.admin() as admin:
            admin.execute(f"ALTER {limit} CONNECTION LIMIT 6")
    wait_for_sessions(small, 0)
    # `web` may not read the statistics of `worker`, and counts it all the same.
    with psycopg.connect(small.dsn_of("worker")), psycopg.connect(small.dsn_of("web")):
        seen = run(HeadroomProbe(small.dsn_of("web", "psycopg"), **NOTHING))
        assert (seen["binding_limit"], seen["in_use"], seen["headroom"]) == found
        wait_for_sessions(small, 2)
        # One more than that, for the probe's own connection has been closed.
        with filled(lambda: psycopg.connect(small.dsn_of("web")), psycopg.Error) as taken:
            assert taken == found[2] + 1


def test_a_superuser_has_the_reserved_places_too(small: SmallPostgreSQL, run: Runner) -> None:
    with small.admin() as admin:
        admin.execute("ALTER DATABASE postgres CONNECTION LIMIT 8")  # not for superusers
    found = run(HeadroomProbe(small.dsn("psycopg"), **NOTHING))
    assert (found["binding_limit"], found["limit"]) == ("max_connections", 20)
    assert "database_headroom" not in found


def test_places_reserved_for_some_roles(small: SmallPostgreSQL, run: Runner) -> None:
    def limit() -> object:
        return run(HeadroomProbe(small.dsn_of("web", "psycopg"), **NOTHING))["limit"]

    with small.admin() as admin:
        if admin.info.server_version < 160000:  # there was no such setting
            assert limit() == 17
            return
        admin.execute("ALTER SYSTEM SET reserved_connections = 4")
    try:
        small.restart()
        assert limit() == 13
        with small.admin() as admin:
            admin.execute("GRANT pg_use_reserved_connections TO web")
        assert limit() == 17
    finally:
        with small.admin() as admin:
            admin.execute("REVOKE pg_use_reserved_connections FROM web")
            admin.execute("ALTER SYSTEM RESET reserved_connections")
        small.restart()


def test_the_apps_own_are_told_apart_by_their_application_name(
    small: SmallPostgreSQL, run: Runner
) -> None:
    def others(own: str | None, pattern: str | None = None) -> object:
        dsn = small.dsn_of("web", "psycopg") + (f"?application_name={own}" if own else "")
        probe = HeadroomProbe(dsn, application_name=pattern, **NOTHING)
        return run(probe)["in_use_by_others"]

    def session(role: str, name: str) -> psycopg.Connection:
        return psycopg.connect(small.dsn_of(role), application_name=name)

    with session("web", "web-7"), session("web", "x"), session("worker", "web-8"):
        assert others(None) == 3
        assert others("x") == 2
        assert others("web-8") == 3  # that of another role is not the app's
        assert others("web-9", "web-%") == 2
        assert others("x", "web-%") == 3  # the probe's own has no such name


def test_the_old_generation_is_not_counted_twice(small: SmallPostgreSQL, run: Runner) -> None:
    engine = sa.create_engine(small.dsn_of("web", "psycopg"), pool_size=5, max_overflow=1)
    run.finally_close(engine)
    probe = HeadroomProbe(engine, processes=1, beside_pool=1, timeout=PATIENCE)
    idle = run(probe)
    for _ in range(6):
        run.take(engine)
    busy = run(probe)
    assert idle["forecast"] == busy["forecast"] == idle["demand"] == 14
    assert (idle["in_use"], busy["in_use"]) == (1, 7)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_by_an_async_engine(driver: str, small: SmallPostgreSQL, run: Runner) -> None:
    engine = create_async_engine(small.dsn_of("web", driver), pool_size=3, max_overflow=2)
    run.finally_close(engine)
    assert run(HeadroomProbe(engine, processes=1, timeout=PATIENCE))["headroom"] == 5
    with pytest.raises(ProbeFailedError, match=r"forecast is 24: .*, 7 too many"):
        run(HeadroomProbe(engine, processes=2, timeout=PATIENCE))
    wait_for_sessions(small, 0)


def test_a_server_that_is_full_already(small: SmallPostgreSQL, run: Runner) -> None:
    with filled(lambda: psycopg.connect(small.dsn_of("web")), psycopg.Error):
        with pytest.raises(ProbeFailedError, match="connection slots are reserved") as info:
            run(HeadroomProbe(small.dsn_of("web", "psycopg"), **NOTHING))
        assert PASSWORD not in str(info.value)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_server_that_hangs(driver: str, small: SmallPostgreSQL, run: Runner) -> None:
    make = create_async_engine if driver == "asyncpg" else sa.create_engine
    engine = make(small.dsn_of("web", driver))
    run.finally_close(engine)
    probe = HeadroomProbe(engine, processes=1, per_process=1, timeout=0.5)
    small.pause()
    with pytest.raises(ProbeFailedError):
        run(probe)
    small.resume()
    run(HeadroomProbe(engine, processes=1, per_process=1, timeout=PATIENCE))


# MariaDB


@pytest.fixture
def few(mariadb: MariaDB) -> Iterator[MariaDB]:
    """MariaDB with 12 places, 7 of them for the account `web`."""

    def execute(*statements: str) -> None:
        socket = str(mariadb.folder / "s")
        with pymysql.connect(unix_socket=socket, user="root", autocommit=True) as root:
            for statement in statements:
                root.cursor().execute(statement)

    account = f"web@'%' IDENTIFIED BY '{PASSWORD}'"
    execute(
        f"CREATE USER {account} WITH MAX_USER_CONNECTIONS 7", "GRANT SELECT ON app.* TO web@'%'",
        f"CREATE USER all{account}", "GRANT SELECT ON app.* TO allweb@'%'",
        "SET GLOBAL max_connections = 12",
    )  # fmt: skip
    yield mariadb
    execute("SET GLOBAL max_connections = 151", "DROP USER web@'%', allweb@'%'")


@pytest.mark.parametrize(
    ("account", "binding", "left"),
    [("web", "max_user_connections of web", 5), ("allweb", "max_connections", 9)],
)
def test_mariadb_takes_as_many_as_there_is_room_for(
    account: str, binding: str, left: int, few: MariaDB, run: Runner
) -> None:
    def connect(user: str = account) -> Any:
        return pymysql.connect(
            host="127.0.0.1", port=few.port, user=user, password=PASSWORD, database="app"
        )

    dsn = few.dsn().replace(f"//{few.user}:", f"//{account}:")

    def found() -> dict[str, Any]:
        return {**run(HeadroomProbe(dsn, **NOTHING))}

    with connect(), connect(few.user):
        # It lets go of the connections of earlier tests a bit later.
        until_sync(lambda: found()["server_headroom"] == 9)
        seen = found()
        assert (seen["binding_limit"], seen["headroom"]) == (binding, left)
        assert seen["in_use_by_others"] == (1 if account == "allweb" else 0)
        until_sync(lambda: found()["server_headroom"] == 9)
        with filled(connect, pymysql.Error) as taken:
            assert taken in {left, left + 1}  # the probe's own may not be gone yet


# Redis


@pytest.fixture
def narrow(redis_server: Redis) -> Iterator[Redis]:
    """Redis with 12 places."""
    client = redis.Redis.from_url(redis_server.dsn())
    client.config_set("maxclients", 12)
    client.connection_pool.disconnect()
    yield redis_server
    client.config_set("maxclients", 10000)
    client.connection_pool.disconnect()


TARGETS: dict[str, Callable[[str], Any]] = {
    "sync": redis.Redis.from_url,
    "sync resp3": lambda url: redis.Redis.from_url(url, protocol=3, decode_responses=True),
    "async": redis.asyncio.Redis.from_url,
    "url": str,
}


@pytest.mark.parametrize("kind", TARGETS)
def test_redis_takes_as_many_as_there_is_room_for(kind: str, narrow: Redis, run: Runner) -> None:
    probe = HeadroomProbe(TARGETS[kind](narrow.dsn()), **NOTHING)

    def connect(database: int = 0, name: str | None = None) -> Any:
        client = redis.Redis.from_url(
            narrow.dsn().removesuffix("0") + str(database),
            single_connection_client=True,
            client_name=name,
        )
        client.ping()
        return client

    with connect(), connect(name="worker"), connect(3):
        until_sync(lambda: run(probe)["in_use"] == 4)
        found = run(probe)
        assert (found["binding_limit"], found["limit"]) == ("maxclients", 12)
        assert (found["headroom"], found["in_use_by_others"]) == (8, 2)
        with filled(connect, redis.ConnectionError) as taken:
            assert taken in {8, 9}  # the probe's own may not be gone yet
    with pytest.raises(ProbeFailedError, match=r"maxclients allows 12 .*, 12 too many"):
        run(HeadroomProbe(TARGETS[kind](narrow.dsn()), **NOTHING | {"per_process": 12}))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_redis_that_hangs(kind: str, redis_server: Redis, run: Runner) -> None:
    probe = HeadroomProbe(TARGETS[kind](redis_server.dsn()), **NOTHING | {"timeout": 0.3})
    redis_server.pause()
    with pytest.raises(ProbeTimeoutError, match=r"no answer within 0\.3 s"):
        run(probe)
    redis_server.resume()
    run(HeadroomProbe(TARGETS[kind](redis_server.dsn()), **NOTHING))
