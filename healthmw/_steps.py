"""Drives a coroutine step by step, to see how long it holds the event loop in one go."""

from __future__ import annotations

import inspect
import time
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator


class Steps:
    """The longest step so far, in seconds."""

    __slots__ = ("longest",)

    def __init__(self) -> None:
        self.longest = 0.0


def stepwise(awaitable: Awaitable[Any], steps: Steps) -> Awaitable[Any]:
    """Return `awaitable` as one that notes in `steps` how long its longest step was."""
    if inspect.iscoroutine(awaitable):
        return _drive(awaitable, steps)
    return awaitable  # a future or the like: it has no steps of its own


@types.coroutine
def _drive(coroutine: Any, steps: Steps) -> Generator[Any, Any, Any]:
    # What `yield from` does (PEP 380), with a look at the clock around each step.
    resume, argument = coroutine.send, None
    while True:
        began = time.perf_counter()
        try:
            waits_for = resume(argument)
        except StopIteration as stop:
            return stop.value
        except GeneratorExit as exc:  # its own: ours comes by way of the `yield`
            raise RuntimeError("coroutine raised GeneratorExit") from exc
        finally:
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
