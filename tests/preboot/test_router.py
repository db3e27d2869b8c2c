"""What the simulator counts as a failed request: else a table of no failures would say little."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.faults.proxy import LoopThread
from tests.preboot.generation import eventually
from tests.preboot.router import Backend, Router, Users

if TYPE_CHECKING:
    from collections.abc import Iterator

OKAY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@contextmanager
def answering(answer: bytes | None) -> Iterator[Backend]:
    """Give each request this answer, or none at all."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                taken.append(client)
                if answer is not None:
                    with client:
                        client.recv(65536)
                        client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Backend("it", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for client in taken:
            client.close()


def asked(loop: LoopThread, *backends: Backend) -> tuple[Users, Router]:
    """Have users ask for ten pages by way of the router."""
    router = Router(patience=0.2)
    router.backends = backends
    loop.call(router.start())
    users = Users(router.port, ["/"], 0.001)
    loop.call(users.start(2))
    eventually(lambda: users.asked >= 10)
    loop.call(users.stop())
    loop.call(router.close())
    return users, router


def test_whole_answers_are_counted_as_such(loop: LoopThread) -> None:
    with answering(OKAY) as one, answering(OKAY) as other:
        users, router = asked(loop, one, other)
    assert users.failed == 0
    assert one.tried + other.tried == users.answered
    assert abs(one.tried - other.tried) <= 1, "in turn"
    assert not router.log


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 500 Oh no\r\nContent-Length: 0\r\n\r\n", "status 500"),
        (OKAY[:-1], "connection closed"),
        (b"", "connection closed"),
        (None, "no answer in time"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", None),
    ],
)
def test_anything_else_is_a_failure(
    answer: bytes | None, reason: str | None, loop: LoopThread
) -> None:
    with answering(answer) as one:
        users, router = asked(loop, one)
    assert users.answered == 0
    assert [*router.log] == ([reason] if reason else [])


def test_so_is_nobody_at_all(loop: LoopThread) -> None:
    with closing(socket.socket()) as reserved:
        reserved.bind(("127.0.0.1", 0))
        users, router = asked(loop, Backend("it", reserved.getsockname()[1]))
    assert (users.answered, [*router.log]) == (0, ["connection refused"])
    users, router = asked(loop)
    assert (users.answered, [*router.log]) == (0, ["nobody to send it to"])
