"""The checks that every candidate registers, as $CHECKS says; the standard library's alone.

`async 3 0` is three of them that await nothing; `sync 10 0.05` ten plain functions that take 50 ms;
`async 1 hang` one that never comes back. Each tells the file $JOURNAL, where that is set, when it
begins (b) and when it ends (e).
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KIND, NUMBER, SECONDS = (os.environ.get("CHECKS") or "async 3 0").split()
HANGS = SECONDS == "hang"
LASTS = 0.0 if HANGS else float(SECONDS)
DSN = os.environ.get("DSN", "")
MAX_AGE = os.environ.get("MAX_AGE")
"""The age in seconds that a result may have, where one can choose; None for as it is shipped."""

_journal = os.open(os.environ.get("JOURNAL") or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_noted = bool(os.environ.get("JOURNAL"))


@contextmanager
def _noting() -> Iterator[None]:
    os.write(_journal, b"b")
    try:
        yield
    finally:
        os.write(_journal, b"e")


def _async_check(name: str) -> Callable[[], Any]:
    async def work() -> None:
        if HANGS:
            await asyncio.Event().wait()
        elif LASTS:
            await asyncio.sleep(LASTS)

    async def noted() -> None:
        with _noting():
            await work()

    return _named(noted if _noted else work, name)


def _sync_check(name: str) -> Callable[[], Any]:
    def work() -> None:
        if HANGS:
            time.sleep(3600)
        elif LASTS:
            time.sleep(LASTS)

    def noted() -> None:
        with _noting():
            work()

    return _named(noted if _noted else work, name)


def _named(check: Callable[[], Any], name: str) -> Callable[[], Any]:
    check.__name__ = check.__qualname__ = name
    return check


def checks() -> dict[str, Callable[[], Any]]:
    """Return the checks by name."""
    make = _async_check if KIND == "async" else _sync_check
    return {f"check_{n}": make(f"check_{n}") for n in range(int(NUMBER))}


def runs(journal: str) -> tuple[int, int]:
    """Return how many checks have begun, and how many of them have not ended."""
    with open(journal, "rb") as file:  # noqa: PTH123 - as little as can be, under any Python
        noted = file.read()
    return noted.count(b"b"), noted.count(b"b") - noted.count(b"e")
