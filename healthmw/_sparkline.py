"""A bar for each of the last runs, as high as it took long: a picture in SVG, and in words."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from healthmw._model import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from healthmw._history import PastRun

_HEIGHT = 24
_BAR = 3
_STEP = 4
_LEAST = 2
RUNS_SHOWN = 30


def sparkline(runs: Sequence[PastRun]) -> str:
    """Return inline SVG for the newest of `runs`, and nothing for none.

    A run that was no pass reaches to the top and has a gap in it, so that it shows without colour.
    """
    runs = runs[-RUNS_SHOWN:]
    if not runs:
        return ""
    longest = max(run.duration for run in runs)
    # The newest stands at the right, however many there are.
    first = _STEP * (RUNS_SHOWN - len(runs))
    bars = [_bar(first + _STEP * i, run, longest) for i, run in enumerate(runs)]
    width = _STEP * RUNS_SHOWN - (_STEP - _BAR)
    return (
        f'<svg class="spark" role="img" viewBox="0 0 {width} {_HEIGHT}" width="{width}" '
        f'height="{_HEIGHT}" aria-label="{_in_words(runs)}">{"".join(bars)}</svg>'
    )


def _bar(x: int, run: PastRun, longest: float) -> str:
    if run.raw > Status.DEGRADED:
        return f'<path class="bad" d="M{x} 0h{_BAR}v5h-{_BAR}zM{x} 8h{_BAR}V{_HEIGHT}h-{_BAR}z"/>'
    share = run.duration / longest if longest else 0.0
    height = max(round(share * (_HEIGHT - 6)), _LEAST)
    kind = ' class="poor"' if run.raw is Status.DEGRADED else ""
    return f'<path{kind} d="M{x} {_HEIGHT - height}h{_BAR}V{_HEIGHT}h-{_BAR}z"/>'


def _in_words(runs: Sequence[PastRun]) -> str:
    took = [run.duration for run in runs]
    bad = sum(run.raw > Status.DEGRADED for run in runs)
    words = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    return (
        f"Last {words}: median {in_short(median(took))}, longest {in_short(max(took))}, "
        f"{bad or 'none'} not passing"
    )


def in_short(seconds: float) -> str:
    """Return a duration as people write it: `0.4 ms`, `12 ms`, `2.0 s`, `4 min`, `3 h`, `2 d`."""
    if seconds < 0.9995:
        ms = seconds * 1000
        return f"{ms:.0f} ms" if ms >= 9.95 else f"{ms:.1f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    if seconds < 119.5 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} d"
