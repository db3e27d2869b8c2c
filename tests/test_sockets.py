"""Connections that are given up while they are made leave nothing behind."""

from __future__ import annotations

import gc
import socket
from typing import TYPE_CHECKING, Any

import pg8000.dbapi
import pymysql
import pytest

from healthmw._sockets import connect_pg8000, connect_pymysql
from tests.fakes import FakeServer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable


def listen(sock: socket.socket, _stop: threading.Event) -> None:
    """Say nothing, until the other side has left."""
    while sock.recv(65536):
        pass


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
