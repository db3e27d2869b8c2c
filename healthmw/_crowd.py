"""Those who wait for the same runs: one has begun them, and the others know it by that alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from healthmw._loop import running

if TYPE_CHECKING:
    from healthmw._loop_protocol import Loop, Promise
    from healthmw._model import Report, Result
    from healthmw._runner import Run

_MOMENT = 0.005
"""How long, in seconds, the first reader may take to go on. Longer, and the loop was held up."""


class Begun(NamedTuple):
    """What a reader has before it waits: results that stand, and runs under way."""

    results: dict[str, Result]
    runs: dict[str, Run]

    @property
    def complete(self) -> bool:
        """Whether every run has come back."""
        return all(run.result is not None for run in self.runs.values())

    @property
    def is_open(self) -> bool:
        """Whether who asks now would begin no other runs, so that there is no need to look.

        So it is while every check is being run; and for the moment from when the last has come back
        until the first reader goes on.
        """
        if self.results:
            return False
        for run in self.runs.values():
            if run.result is not None:
                return self._just_back
        return True

    @property
    def _just_back(self) -> bool:
        now = time.monotonic()
        return all(
            run.result is not None and now - run.began - run.result.duration < _MOMENT
            for run in self.runs.values()
        )

    def is_in(self, report: Report) -> bool:
        """Tell whether these very runs, and nothing else, have led to `report`."""
        found = report.results
        return (
            not self.results
            and len(self.runs) == len(found)
            and all(found.get(name, run) is run.result for name, run in self.runs.items())
        )


class Crowd:
    """The readers on one event loop who wait for what the first of them has begun.

    Only the first watches the time, and makes the report. When it leaves without one, for whatever
    reason, the others look for themselves.
    """

    __slots__ = ("_waiting", "begun", "loop", "until")

    def __init__(self, begun: Begun, loop: Loop, until: float) -> None:
        self.begun = begun
        self.loop = loop
        self.until = until
        """When the first leaves at the latest, in monotonic seconds."""
        self._waiting: dict[Promise, None] = {}  # in the order in which they came

    def join(self, until: float) -> Promise | None:
        """Return a promise of the first's report to a reader who asks now and here.

        None, where it has to look for itself: `until` is when it has to leave. The promise holds
        None where the first left without a report.
        """
        if running() is not self.loop.identity or until < self.until or not self.begun.is_open:
            return None
        promise = self.loop.promise()
        self._waiting[promise] = None
        return promise

    def leave(self, promise: Promise) -> None:
        """Wait no longer."""
        self._waiting.pop(promise, None)

    def tell(self, report: Report | None) -> None:
        """Wake the others, as the first leaves."""
        for promise in self._waiting:
            self.loop.keep(promise, report)
