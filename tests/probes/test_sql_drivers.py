"""The probes by a SQL driver of its own: their options, their words, and servers that are none."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
import asyncmy.errors
import psycopg
import psycopg_pool
import pymysql
import pytest
import trio

from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import AsyncmyProbe, AsyncpgProbe, PsycopgProbe, PyMySQLProbe
from tests.fakes import FakeServer, drip, full_listener, garbage, reset, silent
from tests.waiting import foreign_threads

if TYPE_CHECKING:
    from pathlib import Path

    from healthmw._probe import Probe
    from tests.probes.running import Runner

PASSWORD = "s3cr3t-b4it"
POSTGRESQL = f"postgresql://app:{PASSWORD}@{{}}/shop"
MYSQL = f"mysql://app:{PASSWORD}@{{}}/shop"
OURS = (ProbeFailedError, OSError, psycopg.Error, pymysql.Error, asyncmy.errors.Error)


def in_a_thread(dsn: str, **options: Any) -> PsycopgProbe:
    return PsycopgProbe(psycopg_pool.ConnectionPool(dsn, open=False, name="shop"), **options)


PROBES = [
    pytest.param(PsycopgProbe, POSTGRESQL, id="psycopg"),
    pytest.param(in_a_thread, POSTGRESQL, id="psycopg in a thread"),
    pytest.param(AsyncpgProbe, POSTGRESQL, id="asyncpg"),
    pytest.param(PyMySQLProbe, MYSQL, id="pymysql"),
    pytest.param(AsyncmyProbe, MYSQL, id="asyncmy"),
]
every_probe = pytest.mark.parametrize(("make", "dsn"), PROBES)


def fails(run: Runner, probe: Probe) -> None:
    started = time.monotonic()
    with pytest.raises(Exception) as info:  # noqa: PT011 - the drivers' own kinds vary
        run(probe)
    assert time.monotonic() - started < 15
    assert PASSWORD not in f"{info.value!r}{info.value}"
    assert not isinstance(info.value, AssertionError)


@every_probe
@pytest.mark.parametrize("talk", [silent, garbage, reset], ids=["silent", "garbage", "reset"])
def test_a_server_that_is_no_server(talk: Any, make: Any, dsn: str, run: Runner) -> None:
    threads = foreign_threads()
    with FakeServer(talk) as server:
        probe = make(dsn.format(f"127.0.0.1:{server.port}"), timeout=0.3)
        fails(run, probe)
        gc.collect()  # psycopg leaves a connection that timed out in a cycle of references
        run.close_probe(probe)
        server.wait_until_left()
    assert foreign_threads() <= threads


@every_probe
def test_a_server_that_answers_a_byte_at_a_time(make: Any, dsn: str, run: Runner) -> None:
    start = b"\xff\xff\x00\x00\x0a" if dsn is MYSQL else b"R\x00\x00\xff\xff"
    with FakeServer(drip(start + b"\x00" * 60_000)) as server:
        fails(run, make(dsn.format(f"127.0.0.1:{server.port}"), timeout=0.3))


@every_probe
def test_a_name_that_does_not_resolve(make: Any, dsn: str, run: Runner) -> None:
    with pytest.raises(OURS, match=r"resolve|getaddrinfo|Name or service|nodename"):
        run(make(dsn.format("nowhere.invalid")))


@every_probe
@pytest.mark.parametrize("options", [{"timeout": 0}, {"max_replica_lag": 0}, {"writable": "0"}])
def test_options_that_make_no_sense(options: Any, make: Any, dsn: str) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        make(dsn.format("db.internal"), **options)


@every_probe
def test_the_repr_shows_no_credentials(make: Any, dsn: str) -> None:
    shown = repr(make(dsn.format("db.internal:1234")))
    assert PASSWORD not in shown
    assert "db.internal:1234" in shown or shown == "<PsycopgProbe shop>"


@pytest.mark.parametrize("kind", [PsycopgProbe, AsyncpgProbe])
@pytest.mark.parametrize(
    "dsn", ["postgresql://app:b4/it@db:5432/shop", "postgresql://app:s3cr3t-b4it@db:port/shop", "x"]
)
def test_a_malformed_dsn_is_refused_in_our_own_words(kind: Any, dsn: str) -> None:
    with pytest.raises(ValueError, match="target must be a") as info:
        kind(dsn)
    assert "b4" not in str(info.value)
    assert info.value.__cause__ is None


@pytest.mark.parametrize("kind", [PsycopgProbe, AsyncpgProbe, PyMySQLProbe, AsyncmyProbe])
def test_what_is_no_target(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"target must be .* not int"):
        kind(5432)


def test_runs_at_once_fail_together_in_time(run: Runner) -> None:
    with FakeServer(silent) as server:
        probe = PyMySQLProbe(MYSQL.format(f"127.0.0.1:{server.port}"), timeout=0.3)
        outcomes = run.together(probe, 3, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ProbeTimeoutError}


@pytest.mark.parametrize(
    ("kind", "dsn"),
    [
        (PyMySQLProbe, f"mysql://app:{PASSWORD}@localhost/shop?unix_socket={{0}}/socket"),
        (AsyncmyProbe, f"mysql://app:{PASSWORD}@localhost/shop?unix_socket={{0}}/socket"),
        (PsycopgProbe, POSTGRESQL),
        (AsyncpgProbe, POSTGRESQL),
    ],
)
def test_a_unix_socket_that_is_not_there(kind: Any, dsn: str, tmp_path: Path, run: Runner) -> None:
    with pytest.raises(OURS, match="No such file"):
        run(kind(dsn.format(quote(str(tmp_path), safe=""))))


def test_several_hosts() -> None:
    dsn = "postgresql://app@[::1],db-2.internal:5433/shop"
    assert repr(AsyncpgProbe(dsn)) == "<AsyncpgProbe ::1:5432, db-2.internal:5433>"


def test_a_host_that_is_a_folder_is_percent_encoded_in_a_dsn() -> None:
    dsn = "postgresql://app@%2Fvar%2Frun%2Fpostgresql,db-2.internal/shop"
    assert repr(AsyncpgProbe(dsn)) == (
        "<AsyncpgProbe /var/run/postgresql:5432, db-2.internal:5432>"
    )


def test_a_host_that_answers_among_those_that_do_not_resolve(run: Runner) -> None:
    with FakeServer(reset) as server:
        hosts = f"nowhere.invalid,127.0.0.1:{server.port}"
        for probe in (
            PsycopgProbe(POSTGRESQL.format(hosts)),
            AsyncpgProbe(POSTGRESQL.format(hosts)),
        ):
            fails(run, probe)
        server.wait_until_left(2)


@pytest.mark.parametrize("kind", [PsycopgProbe, in_a_thread])
def test_a_host_that_is_silent_leaves_time_for_the_next(kind: Any, run: Runner) -> None:
    with full_listener() as port, FakeServer(reset) as server:
        hosts = f"127.0.0.1:{port},127.0.0.1:{server.port}"
        with pytest.raises(psycopg.OperationalError):
            run(kind(POSTGRESQL.format(hosts), timeout=8))
        server.wait_until_left()


@pytest.mark.parametrize(
    ("probe", "instead"),
    [
        (PsycopgProbe("host=db"), "pass a ConnectionPool on trio"),
        (AsyncpgProbe("postgresql://db"), "use PsycopgProbe with a ConnectionPool on trio"),
        (AsyncmyProbe("mysql://db"), "use PyMySQLProbe on trio"),
    ],
)
def test_what_needs_asyncio_says_so(probe: Any, instead: str) -> None:
    with pytest.raises(ProbeFailedError, match=f"asyncio only; {instead}"):
        trio.run(probe)


def test_what_blocks_runs_in_threads_of_trio() -> None:
    with FakeServer(silent) as server:
        probe = PyMySQLProbe(MYSQL.format(f"127.0.0.1:{server.port}"), timeout=0.3)

        async def main() -> None:
            with pytest.raises(ProbeTimeoutError, match=r"no answer within 0\.3 s"):
                await anyio.to_thread.run_sync(probe)
            await probe.aclose()

        trio.run(main)
