"""What the probes share: resources per process and loop, bounds in time, name look-ups."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from typing import Any
from weakref import WeakSet

import anyio
import pytest
import trio

from healthmw._driver import (
    PerLoop,
    PerProcess,
    check_timeout,
    look_up,
    look_up_any,
    require_asyncio,
    shut_down_after,
    time_limit,
    why,
)
from healthmw.exceptions import ProbeFailedError
from tests.waiting import InThread, until_sync


class Clients:
    """Makes numbered resources for a PerLoop, and keeps account of those that were closed."""

    def __init__(self) -> None:
        self.made = 0
        self.closed: list[int] = []
        self.per_loop = PerLoop(self.make, self.close)

    def make(self) -> int:
        self.made += 1
        return self.made

    async def close(self, number: int) -> None:
        self.closed.append(number)


@pytest.mark.anyio
async def test_per_loop_is_one_on_one_loop() -> None:
    clients = Clients()
    assert [await clients.per_loop.get() for _ in range(3)] == [1, 1, 1]
    await clients.per_loop.aclose()
    assert clients.closed == [1]


@pytest.mark.anyio
async def test_per_loop_may_be_closed_twice_and_used_again() -> None:
    clients = Clients()
    await clients.per_loop.aclose()
    await clients.per_loop.get()
    await clients.per_loop.aclose()
    await clients.per_loop.aclose()
    assert await clients.per_loop.get() == 2
    assert clients.closed == [1]
    await clients.per_loop.aclose()
    assert clients.closed == [1, 2]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_per_loop_makes_another_on_another_loop_and_the_loop_closes_it(backend: str) -> None:
    clients = Clients()
    assert [anyio.run(clients.per_loop.get, backend=backend) for _ in range(3)] == [1, 2, 3]
    assert clients.closed == [1, 2, 3]


@pytest.mark.anyio
async def test_per_loop_keeps_the_loops_of_two_threads_apart() -> None:
    clients = Clients()
    here = await clients.per_loop.get()
    there = await anyio.to_thread.run_sync(lambda: asyncio.run(clients.per_loop.get()))
    assert there != here
    assert clients.closed == [there]
    assert await clients.per_loop.get() == here
    await clients.per_loop.aclose()


def test_per_loop_forgets_what_a_loop_left_that_closed_without_a_word() -> None:
    class Resource:
        pass

    async def close(_: Resource) -> None:
        """Close it, on its own loop."""

    per_loop = PerLoop(Resource, close)
    left: WeakSet[Resource] = WeakSet()
    running = asyncio.new_event_loop()
    kept = running.run_until_complete(per_loop.get())
    for _ in range(3):
        loop = asyncio.new_event_loop()
        left.add(loop.run_until_complete(per_loop.get()))
        loop.close()
    gc.collect()
    assert len(left) == 1  # the last one, until somebody asks again
    assert running.run_until_complete(per_loop.get()) is kept
    anyio.run(per_loop.get, backend="trio")
    gc.collect()
    assert len(left) == 0
    running.close()


FORK = """
import asyncio, json, os, sys
from healthmw._driver import PerLoop, PerProcess

closed = []

async def close(pid):
    closed.append(pid)

left = []
per_process = PerProcess(os.getpid, left.append)
per_loop = PerLoop(os.getpid, close)
loop = asyncio.new_event_loop()
before = [per_process.get(), loop.run_until_complete(per_loop.get())]
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    after = [per_process.get(), loop.run_until_complete(per_loop.get())]
    loop.run_until_complete(per_loop.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())  # as a Runner that was inherited ends
    popped = [per_process.pop(), per_process.pop()]
    os.write(writer, json.dumps([os.getpid(), after, closed, popped, left]).encode())
    os._exit(0)
os.waitpid(child, 0)
told = json.loads(os.read(reader, 65536))
still = [per_process.get(), loop.run_until_complete(per_loop.get())]
loop.run_until_complete(per_loop.aclose())
loop.close()
print(json.dumps({"parent": os.getpid(), "before": before, "still": still, "child": told}))
"""


def test_a_forked_child_makes_its_own_and_leaves_the_inherited_alone() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, check=True, timeout=60)
    told = json.loads(done.stdout)
    parent, (child, after, closed, popped, left) = told["parent"], told["child"]
    assert told["before"] == told["still"] == [parent, parent]
    assert after == [child, child]
    assert closed == [child]
    assert popped == [child, None]
    assert left == [parent]


def test_per_process_is_one_for_all_threads() -> None:
    per_process = PerProcess(object)
    found = []
    threads = [threading.Thread(target=lambda: found.append(per_process.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


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


@pytest.mark.anyio
@pytest.mark.parametrize("hosts", [[], ["nowhere.invalid", "localhost"], [""]])
async def test_one_name_that_resolves_is_enough(hosts: list[str]) -> None:
    await look_up_any(hosts)


@pytest.mark.anyio
async def test_look_up_of_a_name_that_resolves() -> None:
    await look_up("localhost")


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "/var/run/server.sock", "", None])
async def test_look_up_of_an_address_asks_nobody(
    host: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    await look_up(host)


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 80 + ".invalid", "null\0byte"])
async def test_look_up_of_a_name_that_does_not_resolve(host: str) -> None:
    with pytest.raises(ProbeFailedError, match="can't resolve"):
        await look_up(host)


@pytest.mark.anyio
async def test_a_resolver_that_hangs_holds_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    calls: list[str] = []

    def hang(host: str, _port: object) -> None:
        calls.append(host)
        release.wait(20)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    before = set(threading.enumerate())
    try:
        for _ in range(5):
            with anyio.move_on_after(0.05) as scope:
                await look_up("hanging.invalid")
            assert scope.cancelled_caught
        assert len(set(threading.enumerate()) - before) == 1
    finally:
        release.set()
    with anyio.fail_after(20):
        await look_up("hanging.invalid")
    assert set(calls) == {"hanging.invalid"}


def test_a_look_up_that_outlives_its_loop_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: release.wait(20))
    before = set(threading.enumerate())

    async def give_up() -> None:
        with anyio.move_on_after(0.05):
            await look_up("outliving.invalid")

    asyncio.run(give_up())
    trio.run(give_up)
    release.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
    assert caplog.records == []


@pytest.mark.anyio
async def test_a_look_up_for_which_there_was_no_thread_is_tried_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with anyio.fail_after(20), pytest.raises(RuntimeError, match="can't start new thread"):
            await look_up("localhost")
    with anyio.fail_after(20):
        await look_up("localhost")


@pytest.mark.anyio
async def test_whatever_a_resolver_raises_ends_the_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", exhausted)
        with anyio.fail_after(20), pytest.raises(MemoryError):
            await look_up("localhost")
    with anyio.fail_after(20):
        await look_up("localhost")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_loops_that_look_up_a_name_in_the_same_moment_share_the_look_up(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_have_seen_none = threading.Barrier(2, timeout=20)
    calls: list[str] = []
    answers: list[Future[list[object]]] = []

    def new_future() -> Future[list[object]]:
        both_have_seen_none.wait()
        answers.append(Future())
        return answers[-1]

    def find(host: str, _port: object) -> list[object]:
        until_sync(lambda: len(answers) == 2)
        calls.append(host)
        return []

    monkeypatch.setattr("healthmw._driver.Future", new_future)
    monkeypatch.setattr(socket, "getaddrinfo", find)
    askers = [InThread(lambda: anyio.run(look_up, "shared", backend=backend)) for _ in range(2)]
    for asker in askers:
        asker.result()
    assert calls == ["shared"]


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
