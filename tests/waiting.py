"""Waiting for a condition, and not for a time: each fails when it does not come true."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds until a test takes a thing for hung; far more than a slow machine needs."""

_PAUSE = 0.002


async def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, "it never came true"
        await anyio.sleep(_PAUSE)


def until_sync(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, "it never came true"
        time.sleep(_PAUSE)


async def soon(awaitable: Awaitable[T]) -> T:
    """Return what `awaitable` returns; fail if it hangs."""
    with anyio.fail_after(PATIENCE):
        return await awaitable


def let_pass(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clock of timeouts and ages say that so many seconds have passed."""
    before = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: before() + seconds)


def foreign_threads() -> set[threading.Thread]:
    """Return all threads but those in which probes run: these come and go as they are needed."""
    return {thread for thread in threading.enumerate() if thread.name != "healthmw-probe"}


class InThread(Generic[T]):
    """A call in a thread of its own, which does not hold up the end of the tests if it hangs."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.append(self._call())
        except BaseException as exc:  # noqa: BLE001 - raised again where it is waited for
            self._error = exc

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Give it so much time, whether or not it comes to an end."""
        self._thread.join(seconds)

    def result(self) -> T:
        self._thread.join(PATIENCE)
        assert self.done, "it hangs"
        if self._error is not None:
            raise self._error
        return self._outcome[0]


async def defy_cancellation(released: anyio.Event) -> None:
    """Wait for `released` and take no notice of being cancelled, as bad probes do."""
    with anyio.CancelScope(shield=True):  # all that it takes on trio
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()
