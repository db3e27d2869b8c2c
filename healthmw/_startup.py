"""The bind gate: an app that is not ready yet has not started, so its server opens no port."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from healthmw._loop import current_loop
from healthmw._loop_protocol import LoopGoneError
from healthmw._model import Reason
from healthmw._native import in_main_thread
from healthmw.render import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from healthmw._health import Health
    from healthmw._model import Report

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
"""How long to wait before asking again, in seconds: twice as long each time, up to this."""

logger = logging.getLogger("healthmw")


class NotStartedError(Exception):
    """The app was not ready to start in time. Its text names what is at fault."""


async def wait_until_started(health: Health, timeout: float) -> None:
    """Run the group `startup` until it passes; raise `NotStartedError` after `timeout` seconds.

    Checks run anew each time, background ones too: nobody else has asked yet. A signal to stop ends
    it as well: a server notes that, and acts upon it when the start-up has ended.
    """
    pause = _FIRST_PAUSE
    with anyio.move_on_after(timeout) as limit, _ended_by_signals(limit) as heard:
        while True:
            report = await health.run("startup", fresh=True)
            if report.ok:
                return
            if report.reason is Reason.NO_CHECKS:
                raise NotStartedError(f"not ready to start: {_fault(report)}")
            logger.info("not ready to start yet: %s", _fault(report))
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    if heard:
        raise NotStartedError(f"stopped by {heard[0].name} before it was ready to start")
    # Others may have asked meanwhile: what the next reader would be told counts.
    standing = health._reports.standing("startup")  # noqa: SLF001 - the same house
    if standing is not None and standing.ok:
        return
    report = _with_the_late(health.last("startup"))  # each check's last result, of whichever round
    fault = "what has passed is too long ago to count" if report.ok else _fault(report)
    raise NotStartedError(f"not ready to start after {timeout:g} s: {fault}")


@contextlib.contextmanager
def _ended_by_signals(scope: anyio.CancelScope) -> Iterator[list[signal.Signals]]:
    """Cancel `scope` on SIGTERM and SIGINT, beside what their handlers do; yield those that came.

    Where nothing handles them the process ends, as ever. gunicorn is left alone: it would end as a
    whole for a worker that it stops before that has started.
    """
    heard: list[signal.Signals] = []
    loop = current_loop()
    assert loop is not None  # noqa: S101 - for the type checker: this is called in a task
    before: dict[int, Callable[[int, Any], object]] = {}

    def on_signal(number: int, frame: Any) -> None:
        heard.append(signal.Signals(number))
        with contextlib.suppress(LoopGoneError):  # who has put a handler before ours keeps it there
            loop.call_soon(scope.cancel)
        before[number](number, frame)

    if in_main_thread() and "gunicorn.arbiter" not in sys.modules:
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, on_signal)
    try:
        yield heard
    finally:
        for one, handler in before.items():
            if signal.getsignal(one) == on_signal:  # else whoever came later has it call ours
                signal.signal(one, handler)


def _with_the_late(report: Report) -> Report:
    """Return `report` with the checks that are not back from their first run as what they are."""
    results = {
        name: replace(one, reason=Reason.TIMEOUT) if one.reason is Reason.NEVER_RUN else one
        for name, one in report.results.items()
    }
    return replace(report, results=results)


def _fault(report: Report) -> str:
    return text.render(report).removeprefix("FAILED: ")
