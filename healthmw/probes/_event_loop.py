"""A probe of the app's event loop: how long it was blocked of late, and by what."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import anyio

from healthmw._bounds import above
from healthmw._driver import call_soon_threadsafe
from healthmw._held import PerLoop
from healthmw._options import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from healthmw._model import Measurement
    from healthmw._probe import Degraded

_EVERY = 0.1
"""How often the loop is asked for a sign of life, in seconds."""

_LOOK_AFTER = 0.05
"""When it has not given one after so many seconds, what it is doing is looked at."""

_KEPT = 1000


class _Lag(NamedTuple):
    when: float
    seconds: float
    culprit: str


class EventLoopProbe:
    """Look at how long the event loop was blocked in the last `window` seconds.

    A thread asks the loop for a sign of life ten times a second, from the first run on, and looks
    at what the loop's thread does when none comes. So the longest block is told with the task and
    the line of code that it was in, or with the check whose probe it was.

    A pass proves that no sign of life in the window was late by more than `degraded_above`
    (seconds). Later than `failed_above` it fails; by default never, for what has blocked the loop
    has let go of it by the time this can be told. A process whose loop is blocked for good answers
    nothing: `live` is what finds that out.

    It watches the loop that it runs on, which under the ASGI middleware is the app's. Measures
    `lag_seconds`, the worst of the window. Raises `ProbeFailedError`. Runs on asyncio and trio.
    """

    is_async = True

    def __init__(
        self,
        *,
        degraded_above: float | None = 0.5,
        failed_above: float | None = None,
        window: float = 60.0,
    ) -> None:
        self._bounds = above(degraded_above, failed_above)
        self._window = seconds("window", window)
        self._watches = PerLoop(_Watch, _Watch.aclose)

    def __repr__(self) -> str:
        return "<EventLoopProbe>"

    async def __call__(self) -> Degraded | Mapping[str, Measurement]:
        """Tell the worst of the window."""
        watch = await self._watches.get()
        await watch.first.wait()
        worst = watch.worst(time.monotonic() - self._window)
        words = f"the event loop was blocked for {worst.seconds:.2f} s{worst.culprit}"
        found = {"lag_seconds": worst.seconds}
        return self._bounds.judge(worst.seconds, words, found) or found

    async def aclose(self) -> None:
        """Stop watching this loop; the next run begins anew."""
        await self._watches.aclose()


class _Watch:
    """Watches one loop, from a thread. Made on that loop."""

    def __init__(self) -> None:
        self.first = anyio.Event()
        self._call_soon = call_soon_threadsafe()
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):  # on trio
            self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._lags: deque[_Lag] = deque(maxlen=_KEPT)  # appended to by the thread alone
        self._beaten = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="healthmw-loop", daemon=True)
        self._thread.start()

    async def aclose(self) -> None:
        """End the thread, which may still be in the middle of a look."""
        self._stop.set()
        self._beaten.set()
        self._thread.join(1.0)

    def worst(self, since: float) -> _Lag:
        """Return the longest lag after `since`, in monotonic seconds."""
        late = [lag for lag in list(self._lags) if lag.when >= since]
        return max(late, key=lambda lag: lag.seconds, default=_Lag(since, 0.0, ""))

    def _watch(self) -> None:
        with suppress(RuntimeError):  # that the loop has ended
            while not self._stop.is_set():
                self._look()
                self._stop.wait(_EVERY)

    def _look(self) -> None:
        asked = time.monotonic()
        self._beaten.clear()
        self._call_soon(self._beat)
        culprit = ""
        while not self._beaten.wait(_LOOK_AFTER) and not self._stop.is_set():
            if self._loop is not None and self._loop.is_closed():
                return  # it will never answer, as trio does before it ends
            culprit = culprit or self._blame()
        late = time.monotonic() - asked
        if not self._lags or late >= _LOOK_AFTER:
            self._lags.append(_Lag(time.monotonic(), late, culprit))

    def _beat(self) -> None:
        self._beaten.set()
        self.first.set()

    def _blame(self) -> str:
        """Say what the loop's thread is doing now."""
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - documented
        check = place = ""
        while frame is not None:
            place = place or _place(frame)
            check = check or _check(frame)
            frame = frame.f_back
        task = None
        if self._loop is not None:
            with suppress(RuntimeError):
                task = asyncio.current_task(self._loop)
        if check:
            where = f" by the check {check}"
        else:
            where = f" by the task {task.get_name()}" if task is not None else ""
        return f"{where} in {place}" if place else where


def _place(frame: FrameType) -> str:
    """Name the function and line of `frame` if it is of the app, or of a library that it calls."""
    name = frame.f_globals.get("__name__", "")
    if name.partition(".")[0] in sys.stdlib_module_names or name.startswith("healthmw."):
        return ""
    code = frame.f_code
    return f"{code.co_qualname}() at {code.co_filename}:{frame.f_lineno}"


def _check(frame: FrameType) -> str:
    """Name the check that `frame` runs, if it is where the engine runs one."""
    if frame.f_globals.get("__name__") != "healthmw._runner":
        return ""
    check = getattr(frame.f_locals.get("self"), "check", None)
    return getattr(check, "name", "")
