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

    __slots__ = ("_waiting", "begun", "loop")

    def __init__(self, begun: Begun, loop: Loop) -> None:
        self.begun = begun
        self.loop = loop
        self._waiting: list[Promise] = []

    def join(self) -> Promise | None:
        """Return what a reader is to wait for who asks now and here, if it can do no better.

        That is what the first has made of the runs; None, where it has left without a report.
        """
        if running() is not self.loop.identity or not self.begun.is_open:
            return None
        promise = self.loop.promise()
        self._waiting.append(promise)
        return promise

    def tell(self, report: Report | None) -> None:
        """Wake the others, as the first leaves."""
        for promise in self._waiting:
            if not promise.done():
                promise.set_result(report)
