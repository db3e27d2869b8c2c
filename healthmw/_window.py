"""Sliding windows over the last results: by count, and by seconds."""

from __future__ import annotations

from collections import deque
from typing import Protocol

_BUCKETS = 10


class Window(Protocol):
    """What both windows do. Neither is thread-safe: the breaker's lock guards them."""

    calls: int
    failures: int
    slow: int

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in the result of one call that ended at `now`."""

    def expire(self, now: float) -> None:
        """Let go of what is too old at `now`."""


class CallWindow:
    """The last `size` calls."""

    __slots__ = ("_results", "calls", "failures", "slow")

    def __init__(self, size: int) -> None:
        self._results: deque[tuple[bool, bool]] = deque(maxlen=size)
        self.calls = self.failures = self.slow = 0

    def add(self, now: float, *, failed: bool, slow: bool) -> None:  # noqa: ARG002 - the protocol's
        """Take in one result, and let go of the oldest where the window is full."""
        if self.calls == self._results.maxlen:
            was_failed, was_slow = self._results[0]
            self.failures -= was_failed
            self.slow -= was_slow
        else:
            self.calls += 1
        self._results.append((failed, slow))
        self.failures += failed
        self.slow += slow

    def expire(self, now: float) -> None:
        """Keep all: no call of these is ever too old."""


class TimeWindow:
    """The last `seconds`, kept as ten sums, so that its size does not grow with the traffic.

    A result leaves between 0.9 and 1.0 times `seconds` after it came, with the others of its tenth.
    """

    __slots__ = ("_buckets", "_width", "calls", "failures", "slow")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _BUCKETS
        self._buckets: deque[tuple[int, list[int]]] = deque()
        self.calls = self.failures = self.slow = 0

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in one result that came at `now`."""
        self.expire(now)
        tenth = int(now // self._width)
        # Not `!=`: a thread may have read the clock before another and come here after it.
        if not self._buckets or self._buckets[-1][0] < tenth:
            self._buckets.append((tenth, [0, 0, 0]))
        sums = self._buckets[-1][1]
        sums[0] += 1
        sums[1] += failed
        sums[2] += slow
        self.calls += 1
        self.failures += failed
        self.slow += slow

    def expire(self, now: float) -> None:
        """Let go of the tenths that are older than the window."""
        oldest = int(now // self._width) - _BUCKETS
        while self._buckets and self._buckets[0][0] <= oldest:
            calls, failures, slow = self._buckets.popleft()[1]
            self.calls -= calls
            self.failures -= failures
            self.slow -= slow
