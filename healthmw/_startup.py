"""The bind gate: an app that is not ready yet has not started, so its server opens no port."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from healthmw._model import Reason
from healthmw.render import text

if TYPE_CHECKING:
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

    Checks run anew each time, background ones too: nobody else has asked yet.
    """
    pause = _FIRST_PAUSE
    with anyio.move_on_after(timeout):
        while True:
            report = await health.run("startup", fresh=True)
            if report.ok:
                return
            if report.reason is Reason.NO_CHECKS:
                raise NotStartedError(f"not ready to start: {_fault(report)}")
            logger.info("not ready to start yet: %s", _fault(report))
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    # Others may have asked meanwhile: what the next reader would be told counts.
    standing = health._reports.standing("startup")  # noqa: SLF001 - the same house
    if standing is not None and standing.ok:
        return
    report = health.last("startup")  # each check's own last result, of whichever round
    fault = "what has passed is too long ago to count" if report.ok else _fault(report)
    raise NotStartedError(f"not ready to start after {timeout:g} s: {fault}")


def _fault(report: Report) -> str:
    return text.render(report).removeprefix("FAILED: ")
