"""The trial of a server: ask it, step by step, while watching that it lives."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from healthmw.cli import _signals
from healthmw.cli._ask import ask, pause
from healthmw.cli._process import Server, describe
from healthmw.cli._text import limit, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from healthmw.cli._output import Progress
    from healthmw.cli._signals import Signals
    from healthmw.cli._target import Observation, Target

_KNOCK = 0.1
_SETTLE = 0.3
_SHELL_FOUND_NOTHING = {126, 127}


class Verdict(StrEnum):
    """How a trial ended."""

    PASSED = "passed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to see before the next: `target` well, `passes` times in a row."""

    target: Target
    passes: int = 1
    label: str = ""
    """Goes before what is seen, where that is not the verdict itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The time limits of a trial, in seconds."""

    timeout: float
    request_timeout: float
    interval: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial showed."""

    verdict: Verdict
    reason: str
    seconds: float
    requests: int
    last: Observation | None
    """The last observation that has an answer."""
    listening: bool
    """Whether there was ever a connection."""


class Trial:
    """One trial of one server. Owned by the main thread."""

    def __init__(
        self,
        server: Server,
        *,
        pace: Pace,
        signals: Signals,
        progress: Progress,
        shell: bool = False,
    ) -> None:
        self._server = server
        self._pace = pace
        self._signals = signals
        self._progress = progress
        self._shell = shell
        self._start = time.monotonic()
        self._requests = 0
        self._last: Observation | None = None
        self._listening = False
        self._name = "the server"
        self._said = "it was never asked"

    def run(self, steps: Sequence[Step]) -> Outcome:
        """Take the steps in order, and return how far it came."""
        for step in steps:
            if not self._take(step):
                return self._end(*self._why_stopped())
        name, times = steps[-1].target.name, steps[-1].passes
        row = f", {times} times in a row" if times > 1 else ""
        well = f"{name} is well after {seconds(self._elapsed())}: {self._said}{row}"
        # A server that goes to the background, or that falls over its first request, ends a moment
        # after a good answer.
        if pause(_SETTLE, stop=self._cut_short):
            return self._end(*self._why_stopped())
        return self._end(Verdict.PASSED, well)

    def _take(self, step: Step) -> bool:
        in_row = 0
        while True:
            timeout = min(self._pace.request_timeout, max(self._left(), _KNOCK))
            found = ask([step.target], timeout=timeout, stop=self._cut_short)
            if found is None:
                return False
            (seen,) = found
            self._requests += 1
            self._listening |= seen.listening
            if seen.answer is not None:
                self._last = seen
            in_row = in_row + 1 if seen.well else 0
            if not self._is_cut(seen, timeout):
                self._name, self._said = step.target.name, seen.text
            row = f", {in_row} of {step.passes} in a row" if step.passes > 1 and seen.well else ""
            self._progress.show(f"{step.label}{seen.text}{row}")
            if self._stopped():
                return False
            if in_row == step.passes:
                return True
            # Nobody there yet: knock often, it costs the server nothing.
            if pause(self._pace.interval if seen.listening else _KNOCK, stop=self._stopped):
                return False

    def _is_cut(self, seen: Observation, timeout: float) -> bool:
        """Tell whether our own time ran out, after an answer that said what is wrong."""
        ours = seen.answer is None and timeout < self._pace.request_timeout
        return ours and self._last is not None and not self._last.well

    def _stopped(self) -> bool:
        return self._cut_short() or self._left() <= 0

    def _cut_short(self) -> bool:
        """Tell whether to give up even a request on its way, which has a time limit of its own."""
        self._progress.tick()
        return self._signals.first is not None or self._server.status is not None

    def _left(self) -> float:
        return self._start + self._pace.timeout - time.monotonic()

    def _why_stopped(self) -> tuple[Verdict, str]:
        if self._signals.first is not None:
            return Verdict.INTERRUPTED, f"stopped by {_signals.name(self._signals.first)}"
        status = self._server.status
        if status is None:
            return Verdict.FAILED, (
                f"{self._name} was not well within {limit(self._pace.timeout)}: {self._said}"
            )
        if self._shell and status in _SHELL_FOUND_NOTHING:
            return (
                Verdict.UNKNOWN,
                f"the shell could not find or run the command (exit status {status})",
            )
        reason = f"the server ended by itself after {seconds(self._elapsed())}: {describe(status)}"
        if self._server.strays():
            reason += (
                ", and left processes behind in the background: smoke needs a server that stays in"
                " the foreground (no --daemon)"
            )
        return Verdict.FAILED, reason

    def _elapsed(self) -> float:
        return time.monotonic() - self._start

    def _end(self, verdict: Verdict, reason: str) -> Outcome:
        return Outcome(
            verdict=verdict,
            reason=reason,
            seconds=self._elapsed(),
            requests=self._requests,
            last=self._last,
            listening=self._listening,
        )
