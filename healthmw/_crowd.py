"""Those who wait for the same runs: one has begun them, and the others know it by that alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import anyio

from healthmw._flight import wait_for

if TYPE_CHECKING:
    from healthmw._loop import Loop
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
        back = [(run, run.result) for run in self.runs.values() if run.result is not None]
        if not back:
            return True
        now = time.monotonic()
        ages = (now - run.began - result.duration for run, result in back)
        return len(back) == len(self.runs) and max(ages) < _MOMENT

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

    __slots__ = ("_loop", "begun", "concluded", "report")

    def __init__(self, begun: Begun, loop: Loop | None) -> None:
        self.begun = begun
        self._loop = loop
        self.concluded = anyio.Event()
        """Set when the first leaves."""
        self.report: Report | None = None
        """What the first has made of the runs, where all had come back."""

    def has_room(self, loop: Loop | None) -> bool:
        """Tell whether a reader on `loop`, who asks now, can do no better than to join."""
        return (
            loop is not None
            and self._loop is not None
            and loop.identity is self._loop.identity
            and not self.concluded.is_set()
            and self.begun.is_open
        )

    async def lead(self, deadline: float) -> None:
        """Wait for the runs, but not beyond `deadline`, as the first."""
        try:
            await wait_for([*self.begun.runs.values()], deadline)
            # A turn of the loop for those whose requests are just being read: without it, under
            # load, half of them come a moment too late, and run everything anew.
            with anyio.CancelScope(shield=True):  # the results are there, and are to be told
                await anyio.sleep(0)  # noqa: ASYNC115 - that would import a module more
        finally:
            self.concluded.set()
