"""Gives back what probes have opened: all at once, and bounded, whatever hangs or fails."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import time
from typing import TYPE_CHECKING

import anyio

from healthmw._flight import wait_for
from healthmw._fork import in_child
from healthmw._loop import current_loop
from healthmw._loop_protocol import LoopGoneError
from healthmw._probe import closer
from healthmw._scrub import scrub_exception
from healthmw._threads import THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from healthmw._loop_protocol import Loop
    from healthmw._probe import Probe
    from healthmw._runner import Runner

_CLOSING = 1.0
"""How long, in seconds, runs under way and the closing of all probes may take."""

_out: dict[int, tuple[Probe, Loop | None]] = {}
"""The probes whose closing has not come back, by identity; and the loop that it is on, if any."""

logger = logging.getLogger("healthmw")


async def close_probes(runners: Sequence[Runner]) -> None:
    """Close the probes of `runners`. What hangs, even cancelled, is left behind."""
    loop = current_loop()
    assert loop is not None  # noqa: S101 - for the type checker: a coroutine is run by one
    left = len(runners)
    all_closed = anyio.Event()

    async def close(runner: Runner) -> None:
        nonlocal left
        try:
            await _close(runner, loop)
        finally:
            left -= 1
            if not left:
                all_closed.set()

    cancels = [loop.spawn(functools.partial(close, runner)) for runner in runners]
    try:
        with anyio.move_on_after(_CLOSING if runners else 0):
            await all_closed.wait()
    finally:
        for cancel in cancels:
            cancel()


async def _close(runner: Runner, loop: Loop) -> None:
    """Close the probe of `runner`, unless a run of it is stuck in what would be closed.

    While an earlier closing of it is out, no second one begins: it would only hang as well.
    """
    probe = runner.check.probe
    run = runner.under_way
    if run is not None:
        await wait_for([run], time.monotonic() + _CLOSING / 2, loop)
    if runner.under_way is not None:
        return
    try:
        close = closer(probe)
        if close is None:
            return
        if inspect.iscoroutinefunction(close):
            with _alone(probe, loop) as alone:
                if alone:
                    await close()
            return
        result = await _in_thread(functools.partial(_call_alone, close, probe), loop)
        if inspect.isawaitable(result):
            with _alone(probe, loop):
                await result
    except Exception as exc:  # noqa: BLE001 - one that can't be closed must not keep the others open
        logger.warning("check %s: closing its probe: %s", runner.check.name, scrub_exception(exc))


@contextlib.contextmanager
def _alone(probe: Probe, loop: Loop | None) -> Iterator[bool]:
    """Yield whether no closing of `probe` is out; if so this one is, on `loop` or in a thread."""
    before = _out.get(id(probe))
    if before is not None and before[1] is not None and before[1].ended:
        _is_back(before)  # it ended in the middle, and comes back no more
    ours = (probe, loop)
    alone = _out.setdefault(id(probe), ours) is ours
    try:
        yield alone
    finally:
        _is_back(ours)


def _is_back(closing: tuple[Probe, Loop | None]) -> None:
    """Note that `closing` is out no more, unless another is in its place by now."""
    place = id(closing[0])
    if _out.get(place) is closing:
        _out.pop(place, None)


def _call_alone(close: Callable[[], object], probe: Probe) -> object:
    with _alone(probe, None) as alone:
        return close() if alone else None


async def _in_thread(call: Callable[[], object], loop: Loop) -> object:
    done = anyio.Event()
    values: list[object] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            values.append(call())
        except Exception as exc:  # noqa: BLE001 - raised again where it is waited for
            errors.append(exc)
        finally:
            with contextlib.suppress(LoopGoneError):
                loop.call_soon(done.set)

    job = THREADS.start(run)
    try:
        await done.wait()
    finally:
        THREADS.abandon(job)  # one that hangs takes no place away from the probes
    if errors:
        raise errors[0]
    return values[0] if values else None


in_child(_out.clear)  # no thread of the parent's is there
