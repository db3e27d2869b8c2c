"""Flap damping: how many results in a row it takes to turn a check's verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw._model import Reason, Status

if TYPE_CHECKING:
    from healthmw._check import Check
    from healthmw._model import Result


class Damper:
    """Holds the old verdict, if it is one yet, until enough results in a row contradict it."""

    __slots__ = ("_check", "_streak")

    def __init__(self, check: Check) -> None:
        self._check = check
        self._streak = 0

    def verdict(
        self, old: Result, raw: Status, reason: Reason, *, outdated: bool
    ) -> tuple[Status, Reason]:
        """Return status and reason after a run that brought `raw` and `reason`.

        A pass that is `outdated` is none any more.
        """
        good, was_good = raw <= Status.DEGRADED, old.status <= Status.DEGRADED
        if old.reason is Reason.NEVER_RUN or (outdated and was_good) or good == was_good:
            self._streak = 0
            return raw, reason
        self._streak += 1
        threshold = self._check.success_threshold if good else self._check.failure_threshold
        if self._streak >= threshold:
            self._streak = 0
            return raw, reason
        return old.status, Reason.RECOVERING if good else reason
