"""One log line for each change of a check's verdict or of its circuit; none for a poll."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from healthmw._breaker_state import BreakerState
from healthmw._model import Status

if TYPE_CHECKING:
    from healthmw._breaker_state import BreakerEvent
    from healthmw._check import Check
    from healthmw._model import Result

logger = logging.getLogger("healthmw")


def log_result(check: Check, old: Result, new: Result, failure: str) -> None:
    """Log that `check` went from `old` to `new`; `failure` is a scrubbed traceback, or empty."""
    if new.ok:
        level = logging.INFO if new.status is Status.OKAY else logging.WARNING
    else:
        level = logging.ERROR if check.critical else logging.WARNING
    logger.log(
        level,
        "check %s: %s -> %s%s%s%s",
        check.name,
        old.status,
        new.status,
        f" ({new.reason})" if new.reason.value != new.status.value else "",
        f": {new.detail}" if new.detail else "",
        f"\n{failure}" if failure else "",
    )


def log_circuit(name: str, event: BreakerEvent) -> None:
    """Log what befell the circuit of the check `name`."""
    if event.new is BreakerState.CLOSED:
        level = logging.INFO
    elif event.new is BreakerState.HALF_OPEN or event.old is BreakerState.HALF_OPEN:
        level = logging.DEBUG  # a trial; an outage may have thousands of them
    else:
        level = logging.WARNING
    logger.log(level, "check %s: circuit %s -> %s", name, event.old, event.new)
