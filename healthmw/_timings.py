"""Times that don't fit together, as far as a process can know them: told once, at its start."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from healthmw._scrub import outlived

if TYPE_CHECKING:
    from collections.abc import Iterable

    from healthmw._check import Check

_HEROKU = {"startup_timeout": 60.0, "drain_delay": 30.0}
"""When Heroku ends a dyno that has bound no port, and one that was told to stop; in seconds."""

logger = logging.getLogger("healthmw")


@outlived()
def warn_of_checks(checks: Iterable[Check], deadline: float) -> None:
    """Log a warning for each time of `checks` that can never be had; `deadline` is in seconds."""
    for check in checks:
        # Nobody waits for what runs in the background, so there the deadline is no bound.
        if check.interval is None and check.timeout > deadline:
            logger.warning(
                "check %s: timeout=%g is more than the deadline of %g s: "
                "an answer leaves at the deadline, and calls this check timed out",
                check.name,
                check.timeout,
                deadline,
            )
        breaker = check.breaker
        if breaker is None:
            continue
        patience = breaker._rules.half_open_max_wait  # noqa: SLF001 - the same house
        if check.timeout > patience:
            logger.warning(
                "check %s: timeout=%g is more than half_open_max_wait=%g of its breaker: "
                "a trial that takes longer than that has failed, whatever comes of it",
                check.name,
                check.timeout,
                patience,
            )


def warn_of_platform(option: str, value: float) -> None:
    """Log a warning if `option` (in seconds) is as much as the platform grants, or more."""
    limit = _HEROKU[option]
    if "DYNO" in os.environ and value >= limit:
        logger.warning("%s=%g is too long: Heroku ends the dyno after %g s", option, value, limit)
