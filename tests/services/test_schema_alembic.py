"""Two releases and one PostgreSQL schema, by Alembic: deploy, failed deploy, rollback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from healthmw import Health
from healthmw.exceptions import ProbeFailedError
from healthmw.probes import AlembicProbe, SQLAlchemyProbe
from healthmw.testing import PROBE_RULES, check_probe
from tests.alembic_project import Release
from tests.probes.running import Runner
from tests.relay import Relay
from tests.services.servers import PASSWORD, PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import LiteralString

PATIENCE = 15.0

TABLE = "CREATE TABLE customers (id serial, name text)"
EXPAND = "ALTER TABLE customers ADD full_name text"
BREAKS = "ALTER TABLE customers ADD CHECK (no_such_column > 0)"
MENDED = "ALTER TABLE customers ADD CHECK (length(full_name) > 0)"
CONTRACT = "ALTER TABLE customers DROP COLUMN name"


@pytest.fixture
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture
def url(postgresql: PostgreSQL) -> Iterator[str]:
    """A database of this test's own."""

    def execute(statement: LiteralString) -> None:
        with psycopg.connect(postgresql.dsn(), autocommit=True) as admin:
            admin.execute(statement)

    execute("CREATE DATABASE shop")
    yield postgresql.dsn("psycopg").removesuffix("postgres") + "shop"
    execute("DROP DATABASE shop WITH (FORCE)")


class Running:
    """A process of one release that goes on while the schema changes under it."""

    def __init__(self, release: Release, engine: Any, column: str, run: Runner) -> None:
        self._run = run
        self.health = Health(max_age=0, deadline=2 * PATIENCE)
        read: sa.ColumnClause[str] = sa.column(column)
        query = sa.select(read).select_from(sa.table("customers"))
        database = SQLAlchemyProbe(engine, query=query, timeout=PATIENCE)
        self.health.add("database", database, timeout=PATIENCE)
        migrations = AlembicProbe(engine, script_location=release.folder, timeout=PATIENCE)
        self.health.add("migrations", migrations, groups=["release"], timeout=PATIENCE)

    def state(self) -> tuple[str, bool, bool]:
        """Return how the schema fits, whether a deploy of this is admitted, and whether it serves.

        It serves while what its code reads is there, whatever was migrated.
        """
        report = self._run.run(self.health.run("release"))
        result = report.results["migrations"]
        ahead = result.measurements.get("ahead_revisions")
        return (
            result.detail or (f"ahead: {ahead}" if ahead else "fits"),
            report.ok,
            self._run.run(self.health.run()).ok,
        )


Start = Callable[[Release, str], Running]


@pytest.fixture(params=["psycopg", "asyncpg"])
def start(request: pytest.FixtureRequest, url: str, run: Runner) -> Iterator[Start]:
    make = create_async_engine if request.param == "asyncpg" else sa.create_engine
    engine = make(url.replace("psycopg", request.param), poolclass=sa.NullPool)
    started: list[Running] = []

    def begin(release: Release, column: str) -> Running:
        started.append(Running(release, engine, column, run))
        return started[-1]

    yield begin
    for one in started:
        run.run(one.health.aclose())


def release(folder: Path, url: str, *ups: str, **options: object) -> Release:
    """Return a release whose revisions r1, r2, ... execute these statements."""
    made = Release(folder, url, **options)
    for number, up in enumerate(ups, 1):
        made.revision(f"r{number}", f"r{number - 1}" if number > 1 else None, up=up)
    return made


def behind(missing: str) -> str:
    return f"the database is behind the code by {missing}; run alembic upgrade head"


def test_a_deploy_and_its_rollback(url: str, tmp_path: Path, start: Start) -> None:
    v1 = release(tmp_path / "v1", url, TABLE)
    v2 = release(tmp_path / "v2", url, TABLE, EXPAND)
    old, new = start(v1, "name"), start(v2, "full_name")
    assert old.state() == (behind("1 revision: r1"), False, False)
    v1.upgrade()
    assert old.state() == ("fits", True, True)

    # New code against the older schema: refused, and rightly.
    assert new.state() == (behind("1 revision: r2"), False, False)
    v2.upgrade()
    assert new.state() == ("fits", True, True)

    # Old code against the newer schema: it goes on, and a rollback to it is admitted.
    assert old.state() == ("ahead: r2", True, True)
    assert start(v1, "name").state() == ("ahead: r2", True, True)

    # The column that the old code reads goes: that is for another check to see than this one.
    release(tmp_path / "v3", url, TABLE, EXPAND, CONTRACT).upgrade()
    assert old.state() == ("ahead: r3", False, False)
    assert new.state() == ("ahead: r3", True, True)


@pytest.mark.parametrize(
    ("options", "missing", "old_is"),
    [
        ({"transaction_per_migration": True}, "1 revision: r3", "ahead: r2"),
        ({}, "2 revisions: r2, r3", "fits"),  # all in one transaction: none of it has happened
    ],
    ids=["a transaction each", "one transaction"],
)
def test_a_deploy_whose_migration_breaks_half_way(  # noqa: PLR0917 - a case and three fixtures
    options: dict[str, object], missing: str, old_is: str, url: str, tmp_path: Path, start: Start
) -> None:
    v1 = release(tmp_path / "v1", url, TABLE)
    v1.upgrade()
    broken = release(tmp_path / "v2", url, TABLE, EXPAND, BREAKS, **options)
    old, new = start(v1, "name"), start(broken, "full_name")
    with pytest.raises(sa.exc.ProgrammingError, match="no_such_column"):
        broken.upgrade()
    assert new.state()[:2] == (behind(missing), False)
    assert old.state() == (old_is, True, True)

    release(tmp_path / "v3", url, TABLE, EXPAND, MENDED).upgrade()
    assert new.state() == ("fits", True, True)
    assert old.state() == ("ahead: r3", True, True)


def test_a_role_that_may_only_read_and_a_schema_of_its_own(
    url: str, tmp_path: Path, run: Runner
) -> None:
    place = {"version_table": "version", "version_table_schema": "meta"}
    code = release(tmp_path / "v1", url, TABLE, **place)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
        admin.execute("CREATE SCHEMA meta")
        admin.execute("GRANT USAGE ON SCHEMA meta TO reader")
        probe = AlembicProbe(
            url.replace("//app:", "//reader:"),
            script_location=code.folder,
            timeout=PATIENCE,
            **place,
        )
        with pytest.raises(ProbeFailedError, match="behind the code by 1 revision: r1"):
            run(probe)
        code.upgrade()
        with pytest.raises(ProbeFailedError, match="permission denied for table version"):
            run(probe)
        admin.execute("GRANT SELECT ON meta.version TO reader")
        assert run(probe)["ahead"] == 0
        admin.execute("DROP OWNED BY reader")
        admin.execute("DROP ROLE reader")


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_it_keeps_no_connection_and_notices_what_befalls_the_server(
    driver: str, url: str, postgresql: PostgreSQL, tmp_path: Path, run: Runner
) -> None:
    code = release(tmp_path / "v1", url, TABLE)
    code.upgrade()
    make = create_async_engine if driver == "asyncpg" else sa.create_engine
    engine = make(url.replace("psycopg", driver))
    run.finally_close(engine)
    probe = AlembicProbe(engine, script_location=code.folder, timeout=PATIENCE)
    run.together(probe, 5)
    with psycopg.connect(postgresql.dsn()) as admin:
        row = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'")
        assert row.fetchone() == (0,)
    hasty = AlembicProbe(engine, script_location=code.folder, timeout=0.5)
    postgresql.pause()
    with pytest.raises(ProbeFailedError) as info:
        run(hasty)
    postgresql.resume()
    postgresql.restart()
    run(probe)
    assert PASSWORD not in str(info.value)


def test_it_keeps_to_the_contract_of_probes(
    url: str, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    code = release(tmp_path / "v1", url, TABLE)
    code.upgrade()
    with Relay(postgresql.port) as relay:
        dsn = url.replace(f":{postgresql.port}", f":{relay.port}")
        tested = check_probe(
            lambda: AlembicProbe(dsn, script_location=code.folder, timeout=1.0),
            down=relay.down,
            hangs=relay.hangs,
            secrets=[PASSWORD],
            within=20,
            rounds=3,
        )
    assert tested == PROBE_RULES
