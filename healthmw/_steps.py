"""Drives a coroutine step by step, to see how long it holds the event loop in one go, and which."""

from __future__ import annotations

import inspect
import time
import types
from typing import TYPE_CHECKING, Any

from healthmw._native import get_ident

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator


_at_it: dict[int, tuple[Steps, float]] = {}
"""Whose step is being made in a thread, and since when."""


class Steps:
    """The steps of `whose` probe: the longest so far, in seconds."""

    __slots__ = ("longest", "whose")

    def __init__(self, whose: str = "") -> None:
        self.whose = whose
        self.longest = 0.0

    def held_up(self, thread: int, seconds: float) -> str:
        """Return who else has been at a step in `thread` for more than so many seconds, or ''."""
        other, since = _at_it.get(thread, (self, 0.0))
        held_up = other is not self and time.perf_counter() - since > seconds
        return other.whose if held_up else ""


def stepwise(awaitable: Awaitable[Any], steps: Steps) -> Awaitable[Any]:
    """Return `awaitable` as one that notes in `steps` how long its longest step was."""
    if inspect.iscoroutine(awaitable):
        return _drive(awaitable, steps)
    return awaitable  # a future or the like: it has no steps of its own


@types.coroutine
def _drive(coroutine: Any, steps: Steps) -> Generator[Any, Any, Any]:
    # What `yield from` does (PEP 380), with a look at the clock around each step.
    resume, argument = coroutine.send, None
    thread = get_ident()
    while True:
        began = time.perf_counter()
        _at_it[thread] = steps, began
        try:
            waits_for = resume(argument)
        except StopIteration as stop:
            return stop.value
        except GeneratorExit as exc:  # its own: ours comes by way of the `yield`
            raise RuntimeError("coroutine raised GeneratorExit") from exc
        finally:
            _at_it.pop(thread, None)
            took = time.perf_counter() - began
            steps.longest = max(steps.longest, took)
        try:
            argument = yield waits_for
            resume = coroutine.send
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as exc:  # noqa: BLE001 - handed on to the coroutine, whatever it is
            resume, argument = coroutine.throw, exc
