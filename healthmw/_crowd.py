"""Those who wait for the same runs: one has begun them, and the others know it by that alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import anyio

from healthmw._flight import wait_for

if TYPE_CHECKING:
    from healthmw._loop import Loop
    from healthmw._model import Report, Result
    from healthmw._runner import Run


class Begun(NamedTuple):
    """What a reader has before it waits: results that stand, and runs under way."""

    results: dict[str, Result]
    runs: dict[str, Run]

    @property
    def complete(self) -> bool:
        """Whether every run has come back."""
        return all(run.result is not None for run in self.runs.values())

    @property
    def all_under_way(self) -> bool:
        """Whether every check is being run at this moment, so that who asks now need not look."""
        if self.results:
            return False
        for run in self.runs.values():  # noqa: SIM110 - every reader of a crowd comes by here
            if run.result is not None:
                return False
        return True

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

    __slots__ = ("_left", "_loop", "begun", "report")

    def __init__(self, begun: Begun, loop: Loop | None) -> None:
        self.begun = begun
        self._loop = loop
        self._left = anyio.Event()
        self.report: Report | None = None
        """What the first has made of the runs, where all had come back."""

    def has_room(self, loop: Loop | None) -> bool:
        """Tell whether a reader on `loop`, who asks now, can do no better than to join."""
        return (
            loop is not None
            and self._loop is not None
            and loop.identity is self._loop.identity
            and not self._left.is_set()
            and self.begun.all_under_way
        )

    async def lead(self, deadline: float) -> None:
        """Wait for the runs, but not beyond `deadline`, as the first."""
        try:
            await wait_for([*self.begun.runs.values()], deadline)
        finally:
            self._left.set()

    async def follow(self, deadline: float) -> None:
        """Wait for the runs, but not beyond `deadline`, as one of the others."""
        await self._left.wait()
        if self.report is None:
            await wait_for([*self.begun.runs.values()], deadline)
