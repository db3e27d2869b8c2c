"""`writable` and `max_replica_lag`, at real primaries with real replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from healthmw.django.probes import DatabaseProbe
from healthmw.exceptions import ProbeFailedError
from healthmw.probes import (
    AsyncmyProbe,
    AsyncpgProbe,
    PsycopgProbe,
    PyMySQLProbe,
    SQLAlchemyProbe,
)
from tests.probes.running import Runner
from tests.services.servers import PASSWORD, MariaDBReplica, PostgreSQLStandby
from tests.services.sql_django import by_django, no_database_left
from tests.services.sql_view import ServerView
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from healthmw._probe import Probe


@pytest.fixture
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


def plain(dsn: str) -> str:
    """Return a DSN without SQLAlchemy's name for a driver."""
    return dsn.replace("+pymysql", "")


def by_engine(dsn: str, **options: Any) -> SQLAlchemyProbe:
    url = dsn.replace("l://", "l+psycopg://").replace("b://", "b+pymysql://")
    return SQLAlchemyProbe(sa.create_engine(url), **options)


def by_async_engine(dsn: str, **options: Any) -> SQLAlchemyProbe:
    url = dsn.replace("l://", "l+asyncpg://")
    return SQLAlchemyProbe(create_async_engine(url), **options)


@pytest.fixture(autouse=True)
def _no_databases_are_left() -> Iterator[None]:
    with no_database_left():
        yield


POSTGRESQL = [PsycopgProbe, AsyncpgProbe, by_engine, by_async_engine, by_django]
MARIADB = [PyMySQLProbe, AsyncmyProbe, by_engine]


@pytest.fixture
def standby(lend: Callable[[type[PostgreSQLStandby]], PostgreSQLStandby]) -> PostgreSQLStandby:
    """A standby that has replayed all that its primary has."""
    server = lend(PostgreSQLStandby)
    caught_up(server)
    return server


def caught_up(standby: PostgreSQLStandby) -> None:
    """Wait until a standby has replayed all that its primary has written."""
    position = "SELECT pg_wal_lsn_diff({}, '0/0')::bigint"
    (written,) = ServerView(standby.primary).ask(position.format("pg_current_wal_lsn()"))
    replayed = position.format("pg_last_wal_replay_lsn()") + " FROM pg_stat_wal_receiver"
    view = ServerView(standby)
    until_sync(lambda: [int(each) >= int(written) for each in view.ask(replayed)] == [True])


@pytest.fixture
def replica(lend: Callable[[type[MariaDBReplica]], MariaDBReplica]) -> MariaDBReplica:
    """A replica whose replication runs."""
    server = lend(MariaDBReplica)
    until_sync(lambda: running(server) == {"Slave_IO_Running": "Yes", "Slave_SQL_Running": "Yes"})
    return server


def running(replica: MariaDBReplica) -> dict[str, str]:
    engine = sa.create_engine(replica.dsn(), poolclass=sa.NullPool)
    with engine.connect() as connection:
        row = connection.exec_driver_sql("SHOW SLAVE STATUS").mappings().one()
        return {name: row[name] for name in ("Slave_IO_Running", "Slave_SQL_Running")}


def outcome(run: Runner, probe: Probe) -> tuple[str, dict[str, Any]]:
    degraded, found = run.outcome(probe)
    return degraded or "", dict(found)


@pytest.mark.parametrize("make", POSTGRESQL)
def test_a_standby_is_not_writable(make: Any, standby: PostgreSQLStandby, run: Runner) -> None:
    run(make(standby.primary.dsn(), writable=True))
    probe = make(standby.dsn(), writable=True)
    for _ in range(2):
        with pytest.raises(ProbeFailedError, match="the server is a standby: it takes no writes"):
            run(probe)
    run(make(standby.dsn()))


def test_a_primary_may_be_read_only(standby: PostgreSQLStandby, run: Runner) -> None:
    dsn = f"{standby.primary.dsn()}?options=-c%20default_transaction_read_only%3Don"
    run(PsycopgProbe(dsn))
    with pytest.raises(ProbeFailedError, match="transactions are read-only on this server"):
        run(PsycopgProbe(dsn, writable=True))


@pytest.mark.parametrize("make", POSTGRESQL)
def test_the_lag_of_a_standby(make: Any, standby: PostgreSQLStandby, run: Runner) -> None:
    primary, view = ServerView(standby.primary), ServerView(standby)
    # However long ago the last transaction was: nothing has come since.
    age = "SELECT clock_timestamp() - pg_last_xact_replay_timestamp() > '0.3 s'"
    primary.ask("SELECT pg_current_xact_id()::text")
    until_sync(lambda: view.ask(age) == ["True"])
    caught_up(standby)
    probe = make(standby.dsn(), max_replica_lag=0.2)
    assert run(probe)["replica_lag_seconds"] == 0
    assert "replica_lag_seconds" not in run(make(standby.primary.dsn(), max_replica_lag=0.2))

    view.ask("SELECT pg_wal_replay_pause()::text")
    primary.ask("SELECT pg_logical_emit_message(true, 'test', 'something new')::text")
    until_sync(lambda: outcome(run, probe)[0])
    degraded, found = outcome(run, probe)
    lag = found["replica_lag_seconds"]
    assert lag > 0.2
    assert degraded == f"the replica is {lag:.1f} s behind its primary; 0.2 s are allowed"
    assert "replica_lag_seconds" in run(make(standby.dsn(), max_replica_lag=3600))

    view.ask("SELECT pg_wal_replay_resume()::text")
    until_sync(lambda: not outcome(run, probe)[0])
    assert run(probe)["replica_lag_seconds"] == 0


def test_a_standby_whose_primary_is_gone(standby: PostgreSQLStandby, run: Runner) -> None:
    ServerView(standby.primary).ask("CREATE ROLE plain LOGIN PASSWORD 'plain'")  # no privileges
    caught_up(standby)
    dsn = standby.dsn(password="plain").replace("//app:", "//plain:")
    probe = PsycopgProbe(dsn, max_replica_lag=0.2)
    assert run(probe)["replica_lag_seconds"] == 0
    standby.primary.kill()
    until_sync(lambda: outcome(run, probe)[0])
    degraded, _ = outcome(run, probe)
    assert "s behind its primary, and receives nothing from it; 0.2 s are allowed" in degraded
    standby.restart()
    until_sync(lambda: "and receives nothing from it" in outcome(run, probe)[0])
    standby.primary.start()
    until_sync(lambda: not outcome(run, probe)[0])
    assert run(probe)["replica_lag_seconds"] == 0


@pytest.mark.parametrize("make", MARIADB)
def test_a_replica_is_not_writable(make: Any, replica: MariaDBReplica, run: Runner) -> None:
    run(make(plain(replica.primary.dsn()), writable=True))
    probe = make(plain(replica.dsn()), writable=True)
    with pytest.raises(ProbeFailedError, match=r"the server takes no writes \(read_only\)"):
        run(probe)
    view = ServerView(replica)
    view.ask("SET GLOBAL read_only = OFF")
    run(probe)
    view.ask("SET GLOBAL read_only = ON")
    with pytest.raises(ProbeFailedError, match="takes no writes"):
        run(probe)


@pytest.mark.parametrize("make", MARIADB)
def test_the_lag_of_a_replica(make: Any, replica: MariaDBReplica, run: Runner) -> None:
    primary, view = ServerView(replica.primary), ServerView(replica)
    probe = make(plain(replica.dsn()), max_replica_lag=0.5)
    # What other tests have written is replayed meanwhile: it may be behind for a moment.
    until_sync(lambda: outcome(run, probe)[1].get("replica_lag_seconds") == 0)
    assert "replica_lag_seconds" not in run(make(plain(replica.primary.dsn()), max_replica_lag=0.5))

    view.ask("STOP SLAVE")
    view.ask("CHANGE MASTER TO master_delay = 3600")
    view.ask("START SLAVE")
    primary.ask("CREATE OR REPLACE TABLE app.something_new (id INTEGER)")
    until_sync(lambda: "behind" in outcome(run, probe)[0])
    degraded, found = outcome(run, probe)
    lag = found["replica_lag_seconds"]
    assert lag >= 1
    assert degraded == f"the replica is {lag:.1f} s behind its primary; 0.5 s are allowed"

    view.ask("STOP SLAVE SQL_THREAD")
    degraded, found = outcome(run, probe)
    assert degraded == "replication does not run: receiving is Yes, replaying is No"
    assert "replica_lag_seconds" not in found

    view.ask("STOP SLAVE")
    view.ask("CHANGE MASTER TO master_delay = 0")
    view.ask("START SLAVE")
    until_sync(lambda: not outcome(run, probe)[0])


def test_who_may_not_see_the_lag_is_told(replica: MariaDBReplica, run: Runner) -> None:
    primary = ServerView(replica.primary)
    primary.ask(f"CREATE OR REPLACE USER plain IDENTIFIED BY '{PASSWORD}'")
    url = plain(replica.primary.dsn()).replace("//app:", "//plain:").removesuffix("app")
    with pytest.raises(Exception, match="SLAVE MONITOR") as info:
        run(PyMySQLProbe(url, max_replica_lag=1))
    assert PASSWORD not in str(info.value)


def test_a_database_of_django_that_has_no_replicas() -> None:
    options: list[dict[str, Any]] = [{"writable": True}, {"max_replica_lag": 1}]
    for option in options:
        with pytest.raises(ValueError, match="for PostgreSQL, MySQL and MariaDB, not for unknown"):
            DatabaseProbe(**option)
