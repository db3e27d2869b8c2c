"""What the tests of breakers and guards share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from healthmw import CircuitBreaker
from healthmw._breaker_state import BreakerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw._breaker import Permit

CLOSED = BreakerState.CLOSED
OPEN = BreakerState.OPEN
HALF_OPEN = BreakerState.HALF_OPEN

PATIENCE = 30.0
"""Seconds that a test waits for what happens in milliseconds, before it says that it doesn't."""


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


def never_jitter() -> float:
    return 0.0


def make_breaker(
    clock: Clock, make: Callable[..., CircuitBreaker] = CircuitBreaker, **options: Any
) -> CircuitBreaker:
    """A breaker that opens after three failures, for 10 s, without jitter."""
    chosen: dict[str, Any] = {"open_for": 10.0, "random": never_jitter, "clock": clock}
    if not options.keys() & {"window_calls", "window_seconds"}:
        chosen["consecutive_failures"] = 3
    return make(**(chosen | options))


def acquire(breaker: CircuitBreaker, *, trial: bool = True) -> Permit:
    permit = breaker.try_acquire(trial=trial)
    assert permit is not None
    return permit


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        acquire(breaker).failure()


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        acquire(breaker).success()


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run `work(index)` in so many threads at once, and raise what the first of them raised."""
    errors: list[BaseException] = []
    together = threading.Barrier(count)

    def run(index: int) -> None:
        try:
            together.wait(PATIENCE)
            work(index)
        except BaseException as exc:  # noqa: BLE001 - raised below, in the test's own thread
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
