"""The connection that DatabaseProbe keeps, whatever Django's settings say of the app's own."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connections

from healthmw.django.probes import DatabaseProbe
from healthmw.exceptions import ProbeTimeoutError
from tests import django_project  # noqa: F401 - configures Django
from tests.fakes import FakeServer, receive, silent
from tests.probes.running import in_thread
from tests.services.sql_django import no_database_left, settings_of
from tests.waiting import InThread, let_pass, until_sync

if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Callable, Iterator

    from tests.services.servers import PostgreSQL

NAME = "healthmw-kept"
SETTINGS: list[dict[str, Any]] = [
    {},
    {"AUTOCOMMIT": False, "CONN_MAX_AGE": None},
    {"OPTIONS": {"application_name": NAME, "connect_timeout": 1}},
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


def lets_in_late(client: socket.socket, stop: threading.Event) -> None:
    """Log a client of PostgreSQL's in after its time, and be silent from then on."""
    receive(client)
    stop.wait(0.8)
    said = {b"server_version": b"15.0", b"client_encoding": b"UTF8", b"TimeZone": b"UTC"}
    messages = [(b"R", bytes(4)), *((b"S", b"%s\0%s\0" % one) for one in said.items())]
    messages += [(b"K", bytes(8)), (b"Z", b"I")]
    for kind, body in messages:
        client.sendall(kind + struct.pack("!I", len(body) + 4) + body)
    silent(client, stop)


def test_a_server_that_falls_silent_after_a_late_login_is_hung_up_on() -> None:
    with no_database_left(), FakeServer(lets_in_late) as server:
        here = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "app",
            "HOST": "127.0.0.1",
            "PORT": server.port,
            "OPTIONS": {"sslmode": "disable", "gssencmode": "disable"},
        }
        connections.settings = connections.configure_settings({"default": {}, "shop": here})
        run = InThread(DatabaseProbe("shop", timeout=0.3))
        with pytest.raises(ProbeTimeoutError, match=r"no answer within 0\.3 s"):
            run.result()


BY_PYMYSQL = """
import pymysql
pymysql.install_as_MySQLdb()
from django.db import connections
from healthmw.django.probes import DatabaseProbe
from healthmw.exceptions import ProbeTimeoutError
from tests import django_project
from tests.fakes import FakeServer, silent

with FakeServer(silent) as server:
    here = {"ENGINE": "django.db.backends.mysql", "HOST": "127.0.0.1", "PORT": server.port}
    connections.settings = connections.configure_settings({"default": {}, "shop": here})
    try:
        DatabaseProbe("shop", timeout=0.5)()
    except ProbeTimeoutError as exc:
        print(exc)
"""


def test_pymysql_does_not_wait_for_ever_for_a_silent_server_to_log_it_in() -> None:
    command = [sys.executable, "-c", BY_PYMYSQL]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == (b"no answer within 0.5 s\n", b"")


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
