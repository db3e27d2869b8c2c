"""When a circuit breaker opens, and for how long: its options, checked, and what they decide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from healthmw._options import count, number, seconds
from healthmw._window import CallWindow, TimeWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw._window import Window

_IN_A_ROW = 5
_MINIMUM_CALLS = 10
_RATE = 0.5
_OPEN_FOR_MAX = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A breaker's options with their defaults filled in. `CircuitBreaker` says what each means."""

    consecutive_failures: int | None
    window_calls: int | None
    window_seconds: float | None
    minimum_calls: int
    failure_rate: float
    slow_call_duration: float | None
    slow_call_rate: float
    half_open_calls: int
    half_open_max_wait: float
    open_for: float
    backoff: float
    open_for_max: float
    jitter: float

    def window(self) -> Window | None:
        """Return a new, empty window, if the rules have one."""
        if self.window_calls is not None:
            return CallWindow(self.window_calls)
        if self.window_seconds is not None:
            return TimeWindow(self.window_seconds)
        return None

    def opens(self, streak: int, window: Window | None) -> bool:
        """Tell whether a closed breaker is to open, `streak` being the failures in a row."""
        if self.consecutive_failures is not None and streak >= self.consecutive_failures:
            return True
        if window is None or window.calls < self.minimum_calls:
            return False
        return self._too_many(window.calls, window.failures, window.slow)

    def reopens(self, failures: int, slow: int) -> bool:
        """Tell whether so many failed or slow trials are enough, whatever the others will say."""
        if self.consecutive_failures is not None and failures:
            return True
        return self._too_many(self.half_open_calls, failures, slow)

    def next_wait(self, last: float) -> float:
        """Return how long to stay open, before jitter; `last` is 0.0 if it was closed before."""
        return min(last * self.backoff, self.open_for_max) if last else self.open_for

    def _too_many(self, calls: int, failures: int, slow: int) -> bool:
        # A quotient, not `failure_rate * calls`: 3 / 30 is 0.1 and 0.1 * 30 is more than 3.
        if failures / calls >= self.failure_rate:
            return True
        return self.slow_call_duration is not None and slow / calls >= self.slow_call_rate


def read_rules(
    *,
    consecutive_failures: int | None,
    window_calls: int | None,
    window_seconds: float | None,
    minimum_calls: int | None,
    failure_rate: float | None,
    slow_call_duration: float | None,
    slow_call_rate: float | None,
    half_open_calls: int,
    half_open_max_wait: float,
    open_for: float,
    backoff: float,
    open_for_max: float | None,
    jitter: float,
) -> Rules:
    """Check every option and fill in the defaults. Raises `ValueError` that names the option."""
    _check_values(
        {
            "consecutive_failures": consecutive_failures,
            "window_calls": window_calls,
            "window_seconds": window_seconds,
            "minimum_calls": minimum_calls,
            "failure_rate": failure_rate,
            "slow_call_duration": slow_call_duration,
            "slow_call_rate": slow_call_rate,
            "open_for_max": open_for_max,
        },
        optional=True,
    )
    _check_values(
        {
            "half_open_calls": half_open_calls,
            "half_open_max_wait": half_open_max_wait,
            "open_for": open_for,
            "backoff": backoff,
            "jitter": jitter,
        },
        optional=False,
    )
    if open_for_max is not None and open_for_max < open_for:
        raise ValueError(
            f"open_for_max ({open_for_max}) must not be less than open_for ({open_for})"
        )
    if window_calls is None and window_seconds is None:
        _refuse_without_window(
            minimum_calls=minimum_calls,
            failure_rate=failure_rate,
            slow_call_duration=slow_call_duration,
            slow_call_rate=slow_call_rate,
        )
        consecutive_failures = consecutive_failures or _IN_A_ROW
    elif window_calls is not None and window_seconds is not None:
        raise ValueError("window_calls and window_seconds are both given: choose one")
    if slow_call_rate is not None and slow_call_duration is None:
        raise ValueError("slow_call_rate needs slow_call_duration: how long is slow?")
    if minimum_calls is None:
        minimum_calls = min(_MINIMUM_CALLS, window_calls or _MINIMUM_CALLS)
    elif window_calls is not None and minimum_calls > window_calls:
        raise ValueError(f"minimum_calls ({minimum_calls}) is more than window_calls can hold")
    return Rules(
        consecutive_failures=consecutive_failures,
        window_calls=window_calls,
        window_seconds=window_seconds,
        minimum_calls=minimum_calls,
        failure_rate=_RATE if failure_rate is None else failure_rate,
        slow_call_duration=slow_call_duration,
        slow_call_rate=_RATE if slow_call_rate is None else slow_call_rate,
        half_open_calls=half_open_calls,
        half_open_max_wait=half_open_max_wait,
        open_for=open_for,
        backoff=backoff,
        open_for_max=max(_OPEN_FOR_MAX, open_for) if open_for_max is None else open_for_max,
        jitter=jitter,
    )


def _refuse_without_window(**options: float | None) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name} needs a window: give window_calls or window_seconds too")


def _share(option: str, value: object) -> None:
    share = number(option, value)
    if not 0 < share <= 1:
        raise ValueError(f"{option}={share!r} must be a fraction above 0 and at most 1")


def _fraction(option: str, value: object) -> None:
    fraction = number(option, value)
    if not 0 <= fraction <= 1:
        raise ValueError(f"{option}={fraction!r} must be a fraction from 0 to 1")


def _factor(option: str, value: object) -> None:
    factor = number(option, value)
    if not 1 <= factor < math.inf:
        raise ValueError(f"{option}={factor!r} must be a finite factor of 1 or more")


_CHECKS: dict[str, Callable[[str, object], object]] = {
    "consecutive_failures": count,
    "window_calls": count,
    "window_seconds": seconds,
    "minimum_calls": count,
    "failure_rate": _share,
    "slow_call_duration": seconds,
    "slow_call_rate": _share,
    "half_open_calls": count,
    "half_open_max_wait": seconds,
    "open_for": seconds,
    "open_for_max": seconds,
    "backoff": _factor,
    "jitter": _fraction,
}


def _check_values(options: dict[str, float | None], *, optional: bool) -> None:
    for name, value in options.items():
        if value is not None or not optional:
            _CHECKS[name](name, value)
