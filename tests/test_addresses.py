"""Looking names up: a resolver that hangs or fails harms nobody."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future

import anyio
import pytest
import trio

from healthmw._addresses import look_up, look_up_any
from healthmw.exceptions import ProbeFailedError
from tests.waiting import InThread, until_sync


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

    monkeypatch.setattr("healthmw._addresses.Future", new_future)
    monkeypatch.setattr(socket, "getaddrinfo", find)
    askers = [InThread(lambda: anyio.run(look_up, "shared", backend=backend)) for _ in range(2)]
    for asker in askers:
        asker.result()
    assert calls == ["shared"]
