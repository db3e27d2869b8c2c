"""Running a probe as the engine does: an async one on the loop, a sync one in a thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncEngine

from healthmw._probe import closer, is_async, read_outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sqlalchemy import Engine

    from healthmw._model import Measurement
    from healthmw._probe import Probe


class Runner:
    """Runs probes one after another, always on the same event loop; closes them in the end."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._probes: list[Probe] = []
        self._taken: list[Any] = []
        self._engines: list[Engine | AsyncEngine] = []

    def __call__(self, probe: Probe) -> Mapping[str, Measurement]:
        """Run `probe` once, and return what it measured; it must not be degraded."""
        degraded, measurements = self.outcome(probe)
        assert degraded is None
        return measurements

    def outcome(self, probe: Probe) -> tuple[str | None, Mapping[str, Measurement]]:
        """Run `probe` once, and return what is degraded and what it measured."""
        if probe not in self._probes:
            self._probes.append(probe)
        if is_async(probe):
            return read_outcome(self._runner.run(probe()))
        return read_outcome(in_thread(probe))

    def together(self, probe: Probe, times: int, *, return_exceptions: bool = False) -> list[Any]:
        """Run `probe` `times` times at once."""

        async def gather() -> list[Any]:
            run = probe if is_async(probe) else lambda: asyncio.to_thread(probe)
            runs = (run() for _ in range(times))
            return await asyncio.gather(*runs, return_exceptions=return_exceptions)

        self._probes.append(probe)
        return self._runner.run(gather())

    def close_probe(self, probe: Probe) -> None:
        """Close `probe`, as the engine does when it stops."""
        self._runner.run(_close(probe))

    def close_during(self, probe: Probe, *, then: Callable[[], object]) -> None:
        """Begin a run, close the probe meanwhile, call `then`, and wait for the run's end."""

        async def main() -> None:
            run = asyncio.ensure_future(probe() if is_async(probe) else asyncio.to_thread(probe))
            await asyncio.sleep(0.2)  # enough for it to wait for its answer
            await _close(probe)
            then()
            await run

        self._runner.run(main())

    def run(self, main: Any) -> Any:
        return self._runner.run(main)

    def take(self, engine: Engine | AsyncEngine) -> None:
        """Take a connection from the app's pool, and keep it until the end."""
        self._taken.append(engine.connect())
        if isinstance(engine, AsyncEngine):
            self.run(self._taken[-1].start())

    def finally_close(self, engine: Engine | AsyncEngine) -> None:
        """Dispose of `engine` in the end."""
        self._engines.append(engine)

    def close(self) -> None:
        for connection in self._taken:
            self._finish(connection.close())
        for probe in self._probes:
            if closer(probe) is not None:
                self.close_probe(probe)
        for engine in self._engines:
            self._finish(engine.dispose())
        # aiosqlite's threads report to the loop when they end.
        for thread in threading.enumerate():
            if "_connection_worker_thread" in thread.name:
                thread.join(20)
        self._runner.close()

    def _finish(self, closing: Awaitable[object] | None) -> None:
        async def wait() -> None:
            if closing is not None:
                await closing

        self.run(wait())


async def _close(probe: Probe) -> None:
    close = closer(probe)
    assert close is not None
    if inspect.iscoroutinefunction(close):
        await close()
    else:
        await asyncio.to_thread(close)


def in_thread(work: Callable[[], Any]) -> Any:
    """Run `work` in a new daemon thread and return what it returned."""
    box: dict[str, Any] = {}

    def run() -> None:
        try:
            box["value"] = work()
        except BaseException as exc:  # noqa: BLE001 - raised again by the caller's thread
            box["error"] = exc

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "the probe did not bound itself"
    if "error" in box:
        raise box["error"]
    return box["value"]
