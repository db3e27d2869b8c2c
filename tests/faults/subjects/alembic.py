"""The migrations of a database, by Alembic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.databases import PostgreSQLSubject

if TYPE_CHECKING:
    from healthmw._probe import Probe
    from tests.faults.subject import Address
    from tests.services.servers import PostgreSQL

_REVISION = '"""One."""\nrevision = "one"\ndown_revision = None\ndef upgrade(): pass\n'


class Migrated(PostgreSQLSubject):
    """On PostgreSQL, by psycopg."""

    name = "`AlembicProbe`, psycopg"

    def new_server(self) -> PostgreSQL:
        server = super().new_server()
        versions = server.folder / "migrations" / "versions"
        versions.mkdir(parents=True)
        versions.joinpath("one.py").write_text(_REVISION, encoding="utf-8")
        return server

    def ready(self) -> None:
        import psycopg

        with psycopg.connect(self.server.dsn()) as connection:
            connection.execute("CREATE TABLE alembic_version (version_num varchar(32))")
            connection.execute("INSERT INTO alembic_version VALUES ('one')")

    def probe(self, at: Address, timeout: float) -> Probe:
        import sqlalchemy as sa

        from healthmw.probes import AlembicProbe

        engine = sa.create_engine(self.url(at, "postgresql+psycopg"), connect_args=self.libpq(at))
        migrations = self.server.folder / "migrations"
        return AlembicProbe(engine, script_location=migrations, timeout=timeout)
