"""Looking at targets without being held up by any of them."""

from __future__ import annotations

import queue
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from healthmw.cli._target import Observation, Target

_TICK = 0.1


def ask(
    targets: Sequence[Target], *, timeout: float, stop: Callable[[], bool] = lambda: False
) -> list[Observation] | None:
    """Observe all `targets` at once, each in a thread; call `stop` ten times a second meanwhile.

    Returns None as soon as `stop` says True; the threads are then left to their own time limit.
    """
    seen: queue.SimpleQueue[tuple[int, Observation | BaseException]] = queue.SimpleQueue()

    def observe(place: int, target: Target) -> None:
        try:
            seen.put((place, target.observe(timeout)))
        except BaseException as exc:  # noqa: BLE001 - handed over, and raised where it is waited for
            seen.put((place, exc))

    for place, target in enumerate(targets):
        threading.Thread(
            target=observe, args=(place, target), name="healthmw-ask", daemon=True
        ).start()
    found: dict[int, Observation] = {}
    while len(found) < len(targets):
        try:
            place, one = seen.get(timeout=_TICK)
        except queue.Empty:
            if stop():
                return None
            continue
        if isinstance(one, BaseException):
            raise one
        found[place] = one
    return [found[place] for place in range(len(targets))]


def pause(seconds: float, *, stop: Callable[[], bool]) -> bool:
    """Wait; return True as soon as `stop` does."""
    end = time.monotonic() + seconds
    while not stop():
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, _TICK))
    return True
