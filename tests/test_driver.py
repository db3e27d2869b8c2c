"""What probes share around their drivers: bounds in time, and what is told of an error."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
import trio

from healthmw._driver import check_timeout, require_asyncio, shut_down_after, time_limit, why
from healthmw._held import PerProcess
from healthmw.exceptions import ProbeFailedError


def test_time_limit_ends_a_wait() -> None:
    ours, theirs = socket.socketpair()

    def wait_for_an_answer() -> None:
        with time_limit(0.1, lambda: ours.shutdown(socket.SHUT_RDWR)):
            if not ours.recv(1):
                raise ConnectionError("the other side closed the connection")

    started = time.monotonic()
    with ours, theirs, pytest.raises(TimeoutError):
        wait_for_an_answer()
    assert 0.05 < time.monotonic() - started < 10


def test_time_limit_leaves_a_block_alone_that_ends_in_time() -> None:
    fired: list[bool] = []
    before = set(threading.enumerate())
    with time_limit(20, lambda: fired.append(True)):
        pass
    with pytest.raises(ValueError, match="its own"), time_limit(20, lambda: fired.append(True)):
        raise ValueError("its own")
    assert not fired
    assert set(threading.enumerate()) <= before


def test_a_socket_that_comes_when_the_time_is_up_is_shut_down_at_once() -> None:
    ours, theirs = socket.socketpair()

    def wait_for_an_answer() -> None:
        with shut_down_after(0.01) as watch:
            watch(ours.fileno())
            assert ours.recv(1) == b""  # the time is up
            late, other = socket.socketpair()
            with late, other:
                watch(late.fileno())
                assert late.recv(1) == b""
            raise ConnectionError("the other side closed the connection")

    with ours, theirs, pytest.raises(TimeoutError):
        wait_for_an_answer()


def test_why_finds_the_first_cause() -> None:
    first = OSError("refused")
    second = OSError("all attempts failed")
    second.__cause__ = ExceptionGroup("attempts", [first])
    third = RuntimeError("no luck")
    third.__cause__ = second
    assert why(third) == "refused"
    assert why(KeyError()) == "KeyError"


def test_why_comes_to_an_end_where_the_causes_go_round() -> None:
    first = OSError("refused")
    last = OSError("3 attempts failed")
    last.__cause__ = first
    first.__cause__ = last  # a retry that raises the first error from the last one
    assert why(first) == "3 attempts failed"
    assert why(last) == "refused"
    group = ExceptionGroup("attempts", [first])
    last.__cause__ = group
    assert why(group) == "3 attempts failed"
    last.__context__ = RuntimeError("no route")
    assert why(group) == "no route"


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_must_be_a_time(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"^timeout=.* must be a finite number of seconds"):
        check_timeout(timeout)


@pytest.mark.parametrize("timeout", ["2", True, None])
def test_a_timeout_must_be_a_number(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout must be a number of seconds, not "):
        check_timeout(timeout)


def test_asyncio_is_required_where_it_is() -> None:
    async def ask() -> None:
        require_asyncio("This", instead="take that")

    asyncio.run(ask())
    with pytest.raises(ProbeFailedError, match="This works on asyncio only; take that"):
        trio.run(ask)


def test_what_is_closed_in_the_moment_it_is_asked_for_is_no_error() -> None:
    class Closing(dict[int, object]):
        """Stands for a thread that closes between two steps of the one that asks."""

        def __contains__(self, pid: object) -> bool:
            return super().__contains__(pid) and bool(self.popitem())

    per_process = PerProcess(object)
    per_process.get()
    per_process._held = Closing(per_process._held)
    assert per_process.get() is not None
