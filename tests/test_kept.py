"""A probe's own connection, and who closes it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from healthmw._kept import AsyncKeptConnection, KeptConnection
from tests.waiting import let_pass

if TYPE_CHECKING:
    from collections.abc import Callable


class Connections:
    """Makes numbered ones, and keeps account of those that were closed."""

    def __init__(self) -> None:
        self.made = 0
        self.closed: list[int] = []
        self.kept = KeptConnection(
            connect=self.make, close=self.closed.append, timeout=20.0, max_age=60.0
        )
        self.kept_async = AsyncKeptConnection(
            connect=self.make_async,
            close=self.close_async,
            drop=self.closed.append,
            timeout=20.0,
            max_age=60.0,
        )

    def make(self, _seconds: float) -> int:
        self.made += 1
        return self.made

    async def make_async(self) -> int:
        return self.make(1.0)

    async def close_async(self, number: int) -> None:
        self.closed.append(-number)


class LockWithAnEnd:
    """A lock that has something done when it is about to be released."""

    def __init__(self, do: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._to_be_done = [do]
        self.acquire = self._lock.acquire

    def release(self) -> None:
        while self._to_be_done:
            self._to_be_done.pop()()
        self._lock.release()


def test_what_is_closed_during_a_run_is_closed_at_its_end() -> None:
    connections = Connections()

    def work(number: int, _seconds: float) -> list[int]:
        connections.kept.close()
        return [number, *connections.closed]

    assert connections.kept.run(work) == [1]
    assert connections.closed == [1]
    assert connections.kept.run(lambda number, _: number) == 2


def test_what_is_closed_at_the_very_end_of_a_run_is_closed_too() -> None:
    connections = Connections()
    slot: Any = connections.kept._slots.get()
    slot.lock = LockWithAnEnd(connections.kept.close)
    assert connections.kept.run(lambda number, _: number) == 1
    assert connections.closed == [1]


def test_one_that_is_too_old_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = Connections()

    def run() -> int:
        return connections.kept.run(lambda number, _: number)

    assert [run(), run()] == [1, 1]
    let_pass(61.0, monkeypatch)
    assert connections.closed == []
    assert [run(), run()] == [2, 2]
    assert connections.closed == [1]


@pytest.mark.anyio
async def test_one_of_a_loop_that_is_too_old_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = Connections()

    async def same(number: int) -> int:
        return number

    assert [await connections.kept_async.run(same) for _ in range(2)] == [1, 1]
    let_pass(61.0, monkeypatch)
    assert [await connections.kept_async.run(same) for _ in range(2)] == [2, 2]
    assert connections.closed == [1]
    await connections.kept_async.aclose()
    assert connections.closed == [1, -2, 2]
