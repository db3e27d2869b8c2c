"""What the circuit of one check means to its `Health`: what is forgotten, tried again and told."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from healthmw._breaker_state import BreakerState
from healthmw._change_log import log_circuit

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw._breaker_state import BreakerEvent
    from healthmw._reports import Reports
    from healthmw._runner import Runner


class Circuit:
    """Watches the breaker of `runner`'s check. `recover(runner)` sees to the trials."""

    def __init__(self, runner: Runner, reports: Reports, recover: Callable[[Runner], None]) -> None:
        self._runner = runner
        self._reports = reports
        self._recover = recover

    def on_transition(self) -> None:
        """Forget what is held in the moment in which it is true no more."""
        self._reports.circuit_changed()

    def on_event(self, event: BreakerEvent) -> None:
        """Have it tried again, and tell: listeners first, for a log may take its time."""
        self._runner.recorder.circuit(event.new)
        self._reports.changed()
        try:
            if event.new is BreakerState.OPEN:
                self._recover(self._runner)
        finally:
            try:
                self._runner.review()
            finally:
                log_circuit(self._runner.check.name, event)

    def on_trial_due(self) -> None:
        """See to it that somebody is at the trial: its loop may have ended, or its process."""
        # Where no thread is to be had, the next call that is refused tries again.
        with contextlib.suppress(OSError, RuntimeError, MemoryError):
            self._recover(self._runner)
