"""Connecting in time, whatever addresses a host has; what is given up leaves nothing behind."""

from __future__ import annotations

import gc
import socket
import time
from typing import TYPE_CHECKING, Any

import boto3
import pg8000.dbapi
import pymysql
import pytest
import sqlalchemy

from healthmw._sockets import connect_pg8000, connect_pymysql
from healthmw.exceptions import ProbeTimeoutError
from healthmw.probes import MQTTProbe, PyMySQLProbe, S3Probe, SQLAlchemyProbe
from tests.fakes import FakeServer, full_listener
from tests.probes.running import in_thread

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

HOST = "many.test"


def s3(url: str, **options: Any) -> S3Probe:
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="eu-central-1",
        aws_access_key_id="ann",
        aws_secret_access_key="s3cr3t-b4it",
    )
    return S3Probe("shop", client=client, **options)


def sqlalchemy_probe(url: str, **options: Any) -> SQLAlchemyProbe:
    return SQLAlchemyProbe(sqlalchemy.create_engine(url), **options)


PROBES = [
    pytest.param(PyMySQLProbe, "mysql://app@many.test/shop", id="pymysql"),
    pytest.param(sqlalchemy_probe, "mysql+pymysql://app@many.test/shop", id="sqlalchemy pymysql"),
    pytest.param(sqlalchemy_probe, "postgresql+pg8000://app@many.test/shop", id="pg8000"),
    pytest.param(MQTTProbe, "mqtt://many.test", id="mqtt"),
    pytest.param(s3, "http://many.test", id="s3"),
]


def has(ports: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the host lead to these ports, one after the other, as if each were an address."""
    usual = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if host != HOST:
            return usual(host, *args, **options)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
            for port in ports
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize(("make", "url"), PROBES)
def test_the_timeout_is_for_all_addresses_of_a_host_together(
    make: Callable[..., Any], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_listener() as port:
        has([port] * 40, monkeypatch)
        started = time.monotonic()
        with pytest.raises(ProbeTimeoutError):
            in_thread(make(url, timeout=0.5))
        assert time.monotonic() - started < 10


@pytest.mark.parametrize(("make", "url"), PROBES)
def test_an_address_that_is_silent_leaves_time_for_the_next(
    make: Callable[..., Any], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_listener() as port, FakeServer(hang_up) as server:
        has([port, server.port], monkeypatch)
        with pytest.raises(Exception) as info:  # noqa: PT011 - each driver has its own
            in_thread(make(url, timeout=3))
        assert not isinstance(info.value, ProbeTimeoutError)
        server.wait_until_left()


def hang_up(_sock: socket.socket, _stop: threading.Event) -> None:
    """Say nothing, and leave at once."""


def listen(sock: socket.socket, _stop: threading.Event) -> None:
    """Say nothing, until the other side has left."""
    while sock.recv(65536):
        pass


@pytest.mark.parametrize(
    ("connect", "driver", "options"),
    [
        (
            connect_pg8000,
            pg8000.dbapi.connect,
            {"ssl_context": False, "source_address": ("127.0.0.2", 0)},
        ),
        (connect_pymysql, pymysql.connect, {"bind_address": "127.0.0.2"}),
    ],
    ids=["pg8000", "pymysql"],
)
def test_a_connection_comes_from_the_address_that_it_is_to_come_from(
    connect: Callable[..., Any], driver: Callable[..., Any], options: dict[str, Any]
) -> None:
    seen: list[str] = []

    def note(client: socket.socket, _stop: threading.Event) -> None:
        seen.append(client.getpeername()[0])

    with FakeServer(note) as server:
        where = {"host": "127.0.0.1", "port": server.port, "user": "shop"}
        with pytest.raises(Exception):  # noqa: B017, PT011 - each driver has its own
            connect(driver, {**where, **options}, 20, lambda _: None)
        server.wait_until_left()
    assert seen == ["127.0.0.2"]


@pytest.mark.parametrize(
    ("connect", "driver", "options"),
    [
        (connect_pg8000, pg8000.dbapi.connect, {"user": "shop", "ssl_context": False}),
        (connect_pymysql, pymysql.connect, {"user": "shop"}),
    ],
    ids=["pg8000", "pymysql"],
)
def test_what_is_unsent_is_not_left_to_the_garbage_collector(
    connect: Callable[..., Any], driver: Callable[..., Any], options: dict[str, Any]
) -> None:
    watched: list[socket.socket] = []

    def cut(descriptor: int) -> None:
        watched.append(socket.socket(fileno=descriptor))
        watched[0].shutdown(socket.SHUT_RDWR)
        watched[0].detach()

    with FakeServer(listen) as server:
        where = {"host": "127.0.0.1", "port": server.port}
        with pytest.raises(Exception) as failure:  # noqa: PT011 - each driver has its own
            connect(driver, {**where, **options}, 20, cut)
        assert failure.value is not None  # with whose traceback all that was made is still there
        files = [one for one in gc.get_objects() if type(one) is socket.SocketIO]
        assert files
        assert all(file.closed for file in files)
        server.wait_until_left()
