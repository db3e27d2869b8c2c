"""Probes of Django's databases beside the connections that the app has, on a real PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connections
from django.db.backends.postgresql.features import DatabaseFeatures

from healthmw import Health
from healthmw.django.probes import DatabaseProbe, MigrationsProbe
from tests import django_project  # noqa: F401 - configures Django
from tests.services.sql_django import settings_of
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.servers import PostgreSQL

APP = "shop-of-the-tests"


@pytest.fixture
def shop(postgresql: PostgreSQL) -> Iterator[Callable[..., None]]:
    """Return what makes the alias `shop`, with these options; its connections go by `APP`."""
    before = connections.settings

    def make(**options: Any) -> None:
        database = settings_of(postgresql, APP)
        database["OPTIONS"] |= options
        connections.settings = connections.configure_settings({"default": {}, "shop": database})

    yield make
    own: Any = connections["shop"]
    own.close()
    own.close_pool()
    del connections["shop"]
    connections.settings = before


def ask() -> None:
    with connections["shop"].cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.parametrize("kind", [DatabaseProbe, MigrationsProbe])
def test_a_pool_of_the_apps_is_left_to_the_app(
    shop: Callable[..., None], kind: Callable[[str], Any]
) -> None:
    shop(pool={"min_size": 1, "max_size": 1, "timeout": 0.5})
    probe = kind("shop")
    probe()
    ask()  # there is a connection for it
    probe()  # and where the app has them all, the server is well all the same
    probe.close()


def test_a_bare_select_is_written_as_the_database_wants_it(
    shop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle before 23 has no SELECT without a FROM."""
    monkeypatch.setattr(DatabaseFeatures, "bare_select_suffix", " FROM dual_of_oracle")
    shop()
    with pytest.raises(Exception, match="dual_of_oracle"):
        DatabaseProbe("shop")()


def test_a_probe_that_uses_the_orm_leaves_no_connection(
    shop: Callable[..., None], postgresql: PostgreSQL
) -> None:
    """Only the end of a request would close it, and no request ends in the threads of probes."""
    shop()
    health = Health(max_age=0)
    for name in ("users", "orders", "stock"):
        health.add(name, ask)
    with psycopg.connect(postgresql.dsn(), autocommit=True) as admin:
        of_the_app = "FROM pg_stat_activity WHERE application_name = %s"

        def count() -> int:
            found = admin.execute(f"SELECT count(*) {of_the_app}", [APP]).fetchone()
            assert found is not None
            return int(found[0])

        assert health.run_sync().ok
        admin.execute(f"SELECT pg_terminate_backend(pid) {of_the_app}", [APP])
        until_sync(lambda: not count())
        assert health.run_sync().ok
        until_sync(lambda: not count())
