"""What it takes to test a probe: runs like the engine's, and a look at what is left behind."""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import anyio
import anyio.lowlevel

from healthmw import _probe
from healthmw._loop import current_loop
from healthmw._loop_protocol import LoopGoneError
from healthmw._steps import Steps, stepwise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

    from healthmw._probe import Probe

GIVES_UP = 2.0
"""How long, in seconds, a run that was cancelled, or a closing, may take."""

_SETTLES = 10.0
"""How long, in seconds, what is on its way out may take to be gone."""

_POOL = "check_probe-pool"


def patiently(seconds: float, step: float = 0.05) -> Iterator[float]:
    """Yield the length of one step after the other, until they make `seconds` together.

    Steps are counted, not the clock's seconds: where the machine is so busy that a step takes ten
    times its length, the probe has as little of it, and gets ten times as long.
    """
    for number in range(math.ceil(seconds / step)):
        yield min(step, seconds - number * step)


class Pool(ThreadPoolExecutor):
    """A loop's default executor that knows what its threads are at.

    asyncio starts another thread, up to a number, whenever the last one has not said yet that it is
    free. So there may be more after each run, and none is a leak; what they never end is.
    """

    at_work: ClassVar[set[Future[Any]]] = set()

    def __init__(self) -> None:
        super().__init__(thread_name_prefix=_POOL)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a thread call `fn`."""
        future = super().submit(fn, *args, **kwargs)
        self.at_work.add(future)
        future.add_done_callback(self.at_work.discard)
        return future


class Run:
    """One run of a probe, begun as the engine begins it. Its loop is the one it was made on."""

    def __init__(self, probe: Probe) -> None:
        loop = current_loop()
        assert loop is not None  # noqa: S101 - for the type checker: only coroutines make one
        self._loop = loop
        self._probe = probe
        self._ended = anyio.Event()
        self._steps = Steps()
        self._began = time.monotonic()
        self.took = 0.0
        self.value: object = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.cancel = loop.spawn(self._main)

    @property
    def blocked(self) -> float:
        """How long, in seconds, it held the event loop in one go."""
        return self._steps.longest

    async def ends(self, within: float) -> bool:
        """Wait for the end of the run; return False when it has not come `within` seconds."""
        for step in patiently(within):
            if self._ended.is_set():
                break
            with anyio.move_on_after(step):
                await self._ended.wait()
        await anyio.lowlevel.checkpoint()  # so that its task can leave
        return self._ended.is_set()

    async def _main(self) -> None:
        try:
            if _probe.is_async(self._probe):
                self.value = await stepwise(self._probe(), self._steps)
            else:
                self.value = await self._in_thread()
            if inspect.isawaitable(self.value):
                self.value = await self.value
            _probe.read_outcome(self.value)
        except BaseException as exc:
            self.error = exc
            self.cancelled = self._loop.is_cancelled(exc)
            if self.cancelled:
                raise
        finally:
            self.took = time.monotonic() - self._began
            self._ended.set()

    async def _in_thread(self) -> object:
        done = anyio.Event()
        values: list[object] = []
        errors: list[BaseException] = []

        def call() -> None:
            try:
                values.append(self._probe())
            except BaseException as exc:  # noqa: BLE001 - raised again where it is waited for
                errors.append(exc)
            with contextlib.suppress(LoopGoneError):
                self._loop.call_soon(done.set)

        threading.Thread(target=call, daemon=True).start()
        await done.wait()
        if errors:
            raise errors[0]
        return values[0]


async def close(probe: Probe) -> None:
    close = _probe.closer(probe)
    if close is None:
        return
    closing = Run(close)
    if not await closing.ends(GIVES_UP):
        closing.cancel()
        raise AssertionError(f"closing it took more than {GIVES_UP:g} s. Bound it")
    if closing.error is not None:
        name = type(closing.error).__name__
        raise AssertionError(f"closing it raised {name}") from closing.error


class Census:
    """What the process has open at one time: files and sockets, threads, tasks."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    @classmethod
    async def take(cls) -> Self:
        """Count, once what has just ended is gone."""
        await anyio.sleep(0.02)
        gc.collect()
        return cls(_count())

    async def settles(self, when: str, mend: str) -> None:
        """Wait until no more is open than then."""
        steps = [*patiently(_SETTLES, 0.01)]
        for number, step in enumerate(steps):
            if not self._more():
                return
            if number == len(steps) // 10:
                gc.collect()  # what only waits for that is not lost
            await anyio.sleep(step)
        if more := self._more():
            raise AssertionError(f"{when} there are {more} more than before. {mend}")

    def _more(self) -> str:
        now = _count()
        grown = {what: now[what] - before for what, before in self._counts.items()}
        return " and ".join(f"{by} {what}" for what, by in grown.items() if by > 0)


def _count() -> dict[str, int]:
    files = Path("/dev/fd")  # on Linux and macOS
    return {
        "open files or sockets": len([*files.iterdir()]) if files.is_dir() else 0,
        "threads": len(Pool.at_work)
        + sum(
            thread.name != "healthmw-probe" and not thread.name.startswith(_POOL)
            for thread in threading.enumerate()
        ),
        "tasks": sum(task.name != "healthmw" for task in anyio.get_running_tasks()),  # not ours
    }


def words(error: BaseException | None) -> Iterator[str]:
    """Return all that may be shown of `error` and of what led to it."""
    seen: list[Any] = [error]
    for exc in seen:  # grows as it goes
        if exc is not None:
            yield f"{exc!r} {exc!s} {getattr(exc, '__notes__', '')}"
            inner = [exc.__cause__, exc.__context__, *getattr(exc, "exceptions", ())]
            seen += [one for one in inner if one not in seen]


@contextlib.contextmanager
def logged(said: list[tuple[str, str]]) -> Iterator[None]:
    """Note what is logged meanwhile, at any level: an app that looks for a fault logs all."""
    handler = logging.Handler()
    handler.emit = lambda record: said.append(  # type: ignore[method-assign]
        ("a log line", logging.Formatter().format(record))
    )
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
