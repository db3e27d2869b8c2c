"""Asking all targets again and again, until they are well so many rounds in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from healthmw.cli import _signals, _verdict
from healthmw.cli._ask import ask, pause
from healthmw.cli._exit import NOT_WELL, WELL
from healthmw.cli._target import Observation
from healthmw.cli._text import limit, seconds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from healthmw.cli._output import Progress
    from healthmw.cli._signals import Signals
    from healthmw.cli._target import Target


class Rounds:
    """The rounds of one wait. Owned by the main thread."""

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        args: argparse.Namespace,
        signals: Signals,
        progress: Progress,
    ) -> None:
        self._targets = targets
        self._args = args
        self._signals = signals
        self._progress = progress
        self._seen: list[Observation] = []
        self._well = False
        self._others: dict[str, tuple[int, float]] = {}
        """For each other release: how often it answered, and when for the last time."""

    def run(self) -> None:
        """Ask until all are well, or until time is up, or a signal comes."""
        self._progress.show(f"asking {', '.join(target.name for target in self._targets)}")
        in_row = 0
        while not self._stopped():
            timeout = min(self._args.request_timeout, max(self._left(), 0.1))
            found = ask(self._targets, timeout=timeout, stop=self._cut_short)
            if found is None:
                break
            self._seen = self._what_counts([self._of_the_release(one) for one in found], timeout)
            in_row = in_row + 1 if all(one.well for one in self._seen) else 0
            self._progress.show(self._saying(in_row))
            if in_row == self._args.passes:
                self._well = True
                break
            pause(self._args.interval, stop=self._stopped)

    @property
    def exit_status(self) -> int:
        """0 when all were well, else what was seen last amounts to."""
        return WELL if self._well else _verdict.exit_status(self._seen) or NOT_WELL

    def as_json(self, code: int) -> dict[str, Any]:
        """Return what was seen last for `json.dumps`."""
        seen = _verdict.as_json(zip(self._targets, self._seen, strict=False), code)
        others = {name: times for name, (times, _) in self._others.items()}
        elapsed = round(self._progress.elapsed, 3)
        return {"well": self._well, "seconds": elapsed, **seen, "other_releases": others}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the verdict: its word, and what there is to say."""
        if self._well:
            yield "OKAY", f"{self._praise()}{self._about_others()}"
            return
        if self._signals.first is not None:
            yield "INTERRUPTED", f"stopped by {_signals.name(self._signals.first)}"
            when = "so far"
        else:
            when = f"within {limit(self._args.timeout)}"
        for target, one in zip(self._targets, self._seen, strict=False):
            if not one.well:
                about = f"{one.text}{self._about_others()}"
                yield one.word, f"{target.name} was not well {when}: {about}"
            elif self._args.passes > 1:
                yield (
                    "FAILED",
                    f"{target.name} was not well {self._args.passes} times in a row {when}",
                )

    def _praise(self) -> str:
        after = f"after {seconds(self._progress.elapsed)}"
        row = f", {self._args.passes} times in a row" if self._args.passes > 1 else ""
        if len(self._targets) > 1:
            return f"all {len(self._targets)} targets are well {after}{row}"
        (one,) = self._seen
        release = f" (release {one.release})" if one.release else ""
        return f"{self._targets[0].name} is well {after}: {one.text}{row}{release}"

    def _about_others(self) -> str:
        return "".join(
            f"; release {name} answered {times} time{'s' * (times != 1)}, for the last time"
            f" after {seconds(last)}"
            for name, (times, last) in self._others.items()
        )

    def _saying(self, in_row: int) -> str:
        row = f", {in_row} of {self._args.passes} in a row" if self._args.passes > 1 else ""
        if len(self._targets) == 1:
            return f"{self._seen[0].text}{row if in_row else ''}"
        bad = [(t, one) for t, one in zip(self._targets, self._seen, strict=True) if not one.well]
        if not bad:
            return f"all {len(self._targets)} well{row}"
        target, one = bad[0]
        count = len(self._targets) - len(bad)
        return f"{count} of {len(self._targets)} well; {target.name}: {one.text}"

    def _what_counts(self, found: list[Observation], timeout: float) -> list[Observation]:
        """Return `found`, but for those that our own end cut short: what came before tells more."""
        if timeout >= self._args.request_timeout or not self._seen:
            return found
        pairs = zip(self._seen, found, strict=True)
        return [old if self._is_cut(old, new) else new for old, new in pairs]

    @staticmethod
    def _is_cut(old: Observation, new: Observation) -> bool:
        nothing_said = new.answer is None and new.report is None
        checks = (new.report or {}).get("checks", {}).values()
        late = any(check["reason"] == "timeout" for check in checks)
        return (nothing_said or late) and not new.well and not old.well

    def _of_the_release(self, one: Observation) -> Observation:
        """Return `one`, not well if it is an answer of another release than the one asked for."""
        wanted = self._args.release
        nothing_said = one.answer is None and one.report is None
        if wanted is None or nothing_said or one.release == wanted:
            return one
        name = one.release or "without a name"
        times, _ = self._others.get(name, (0, 0.0))
        self._others[name] = (times + 1, self._progress.elapsed)
        return Observation(
            well=False,
            text=f"{one.text}, but from release {name}, not {wanted}",
            seconds=one.seconds,
            answer=one.answer,
            release=one.release,
            report=one.report,
        )

    def _stopped(self) -> bool:
        return self._cut_short() or self._left() <= 0

    def _cut_short(self) -> bool:
        self._progress.tick()
        return self._signals.first is not None

    def _left(self) -> float:
        left: float = self._args.timeout - self._progress.elapsed
        return left
