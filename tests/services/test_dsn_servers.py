"""The command line on real servers, by their URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw.cli import main
from tests.services.servers import PASSWORD

if TYPE_CHECKING:
    import pytest

    from tests.services.servers import MariaDB, PostgreSQL, Redis


def test_every_kind_of_server_is_well(
    postgresql: PostgreSQL,
    mariadb: MariaDB,
    redis_server: Redis,
    capsys: pytest.CaptureFixture[str],
) -> None:
    urls = [
        postgresql.dsn(),
        postgresql.dsn("asyncpg"),
        mariadb.dsn(),
        redis_server.dsn(),
    ]
    assert main(["wait", "--timeout=45", "--passes=2", "--interval=0.1", *urls]) == 0
    assert PASSWORD not in "".join(capsys.readouterr())
