"""Judges one number by two bounds: where it is degraded, and where failed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from healthmw._options import number
from healthmw._probe import Degraded
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from healthmw._model import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of one number, each None where there is none.

    `below` tells on which side of them it is bad.
    """

    degraded: float | None
    failed: float | None
    below: bool = False

    def judge(self, value: float, words: str, found: Mapping[str, Measurement]) -> Degraded | None:
        """Return None for a value that is well, `Degraded` with `words` for one that is not quite.

        `found` is what was measured. Raises `ProbeFailedError` with `words` beyond the last bound.
        """
        if self._beyond(value, self.failed):
            raise ProbeFailedError(words)
        return Degraded(words, found) if self._beyond(value, self.degraded) else None

    def _beyond(self, value: float, bound: float | None) -> bool:
        if bound is None:
            return False
        return value < bound if self.below else value > bound


def above(
    degraded_above: float | None, failed_above: float | None, *, shares: bool = False
) -> Bounds:
    """Return the bounds of what is bad when it is large; raise `ValueError` for a bad option.

    With `shares`, none may be above 1: whoever gives percents would never hear of anything.
    """
    _check("degraded_above", degraded_above, shares=shares)
    _check("failed_above", failed_above, shares=shares)
    if degraded_above is not None and failed_above is not None and degraded_above > failed_above:
        raise ValueError(
            f"degraded_above={degraded_above} is more than failed_above={failed_above}"
        )
    return Bounds(degraded=degraded_above, failed=failed_above)


def below(
    degraded_below: float | None, failed_below: float | None, *, shares: bool = False
) -> Bounds:
    """Return the bounds of what is bad when it is small; raise `ValueError` for a bad option.

    With `shares`, none may be above 1: whoever gives percents would never hear the end of it.
    """
    _check("degraded_below", degraded_below, shares=shares)
    _check("failed_below", failed_below, shares=shares)
    if degraded_below is not None and failed_below is not None and degraded_below < failed_below:
        raise ValueError(
            f"degraded_below={degraded_below} is less than failed_below={failed_below}"
        )
    return Bounds(degraded=degraded_below, failed=failed_below, below=True)


def _check(option: str, value: float | None, *, shares: bool) -> None:
    if value is None:
        return
    if not 0 <= number(option, value) < math.inf:
        raise ValueError(f"{option} must be a number of 0 or more, or None, not {value!r}")
    if shares and value > 1:
        raise ValueError(f"{option} is a share, from 0 to 1: 0.9 for 90 %, not {value!r}")


def not_negative(**options: float | None) -> None:
    """Raise `ValueError` for an option below 0, or that is no number as NaN is."""
    for option, value in options.items():
        if value is not None and not number(option, value) >= 0:
            raise ValueError(f"{option} must not be negative, not {value!r}")
