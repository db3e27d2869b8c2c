"""The connection that DatabaseProbe keeps, whatever Django's settings say of the app's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connections

from healthmw.django.probes import DatabaseProbe
from tests import django_project  # noqa: F401 - configures Django
from tests.probes.running import in_thread
from tests.services.sql_django import settings_of
from tests.waiting import let_pass, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.servers import PostgreSQL

NAME = "healthmw-kept"
SETTINGS: list[dict[str, Any]] = [
    {},
    {"AUTOCOMMIT": False, "CONN_MAX_AGE": None},
    {"AUTOCOMMIT": False, "OPTIONS": {"application_name": NAME, "pool": {"min_size": 1}}},
]


@pytest.fixture(params=SETTINGS, ids=str)
def probe(request: pytest.FixtureRequest, postgresql: PostgreSQL) -> Iterator[DatabaseProbe]:
    """A probe of a database with such settings."""
    before = connections.settings
    here = settings_of(postgresql, NAME) | request.param
    connections.settings = connections.configure_settings({"default": {}, "shop": here})
    probe = DatabaseProbe("shop")
    yield probe
    probe.close()
    if "pool" in here["OPTIONS"]:
        django: Any = connections.create_connection("shop")
        django.close_pool()
    connections.settings = before


@pytest.fixture
def seen(postgresql: PostgreSQL) -> Iterator[Callable[[], list[Any]]]:
    """Return what tells the connections of the probe: the id and the state of each."""
    with psycopg.connect(postgresql.dsn(), autocommit=True) as admin:
        query = "SELECT pid, state FROM pg_stat_activity WHERE application_name = %s"
        yield lambda: admin.execute(query, [NAME]).fetchall()


def test_it_is_kept_and_in_no_transaction(probe: DatabaseProbe, seen: Any) -> None:
    in_thread(probe)
    ((first, _),) = seen()
    for _ in range(3):
        in_thread(probe)
    until_sync(lambda: seen() == [(first, "idle")])


RENEWED: list[Any] = [({}, True), ({"CONN_MAX_AGE": 60}, True), ({"CONN_MAX_AGE": None}, False)]


@pytest.mark.parametrize(("probe", "renewed"), RENEWED, indirect=["probe"], ids=str)
def test_it_grows_no_older_than_the_apps(
    renewed: bool, probe: DatabaseProbe, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_thread(probe)
    ((first, _),) = seen()
    let_pass(61.0, monkeypatch)
    in_thread(probe)
    until_sync(lambda: [pid == first for pid, _ in seen()] == [not renewed])
