"""A watch on the loop that a process lives by: it notices when that moves no more."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

from healthmw._loop_protocol import LoopGoneError
from healthmw._native import Lock, get_ident
from healthmw._probe import Degraded
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from healthmw._loop_protocol import Loop

_TICKS = 4
"""So often the loop is asked in the time after which it counts as stalled."""

_LONGEST_TICK = 1.0


class Watch:
    """A probe that fails when the app's loop has not moved for a while.

    Once it has begun, `tick()` is to be called every `pause` seconds, in a thread that has nothing
    to do with the app's. It asks the event loop that `home` returns to call back, one call at a
    time; who has no event loop calls `beat()`. Time counts only while the ticks come: a machine
    that was asleep makes no process look stalled.
    """

    is_async = False
    watching: bool
    """Whether somebody calls `tick()`."""

    def __init__(self, home: Callable[[], Loop | None]) -> None:
        self._home = home
        self._loop: Loop | None = None
        self.watching = False
        self._stalled_after = self.pause = 0.0

    def begin(self, stalled_after: float) -> None:
        """Begin to watch, or begin anew."""
        self.watching = True
        self._stalled_after = stalled_after
        self.pause = self.pause_of(stalled_after)
        self._lock = Lock()
        self._ticked = time.monotonic()
        self._asked: _Sign | None = None
        self._beat: _Sign | None = None
        self._lag: float | None = None

    @staticmethod
    def pause_of(stalled_after: float) -> float:
        """Return how often to look, in seconds."""
        return min(stalled_after / _TICKS, _LONGEST_TICK)

    def beat(self) -> None:
        """Show that the caller's loop moves."""
        with self._lock:
            self._beat = _Sign(time.monotonic(), get_ident())

    def tick(self) -> None:
        """Ask the event loop, unless it still owes an answer."""
        loop = self._loop = self._home() or self._loop
        with self._lock:
            now = time.monotonic()
            slept = max(now - self._ticked - 2 * self.pause, 0.0)
            self._ticked = now
            for sign in (self._asked, self._beat):
                if sign is not None:
                    sign.when += slept
            if loop is None or (self._asked is not None and self._asked.of is loop):
                return
            asked = self._asked = _Sign(now, loop.thread, loop)
        with contextlib.suppress(LoopGoneError):  # then nothing answers, and that tells
            loop.call_soon(lambda: self._answered(asked))

    def _answered(self, asked: _Sign) -> None:
        with self._lock:
            if self._asked is asked:
                self._lag = time.monotonic() - asked.when
                self._asked = None

    def __call__(self) -> Degraded | Mapping[str, float]:
        """Look once; return by how many seconds the event loop was late when last asked."""
        if not self.watching:
            return Degraded("nobody watches the main loop any more")
        with self._lock:
            signs = [one for one in (self._asked, self._beat) if one is not None]
            oldest = min(signs, key=lambda sign: sign.when, default=None)
            still = 0.0 if oldest is None else self._ticked - oldest.when
            lag = self._lag
        if oldest is not None and still > self._stalled_after:
            where = _where(sys._current_frames().get(oldest.thread))  # noqa: SLF001 - documented
            raise ProbeFailedError(f"the main loop has not moved for {still:.1f} s{where}")
        if lag is not None:
            return {"lag_seconds": lag}
        return {} if oldest is not None else Degraded("no event loop to watch yet, and no beat")


class _Sign:
    """When a loop was asked for a sign of life, or gave one by itself, and in which thread."""

    __slots__ = ("of", "thread", "when")

    def __init__(self, when: float, thread: int, of: Loop | None = None) -> None:
        self.when = when
        self.thread = thread
        self.of = of


def _where(frame: FrameType | None) -> str:
    """Return where a thread is, and from where in the app's own code it got there."""
    if frame is None:
        return ""
    found = f"; it is in {_place(frame)}"
    of_others = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))
    caller: FrameType | None = frame
    while caller is not None and caller.f_code.co_filename.startswith((*of_others, "<")):
        caller = caller.f_back
    if caller is None or caller is frame:
        return found
    return f"{found}, called from {_place(caller)}"


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_name} ({Path(code.co_filename).name}:{frame.f_lineno})"
