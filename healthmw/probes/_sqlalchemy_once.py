"""An errand on a SQL database: some reading, on a connection that is open no longer than that."""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import anyio

from healthmw._driver import check_timeout, require_asyncio, with_latency
from healthmw._held import PerLoop, PerProcess
from healthmw.exceptions import ProbeTimeoutError
from healthmw.probes._engine import show_engine, sync_engine
from healthmw.probes._sqlite import check_file, is_in_memory, sqlite_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from healthmw._probe import Outcome
    from healthmw.probes._sqlalchemy_own import OwnConnection

    Work = Callable[[Connection], Outcome]

_CLOSE_LIMIT = 1.0  # seconds for the end of a run that is under way


class Errand:
    """Do `work` on a connection opened as `target`, an engine or a URL, opens its own.

    One run at a time, in autocommit. `timeout` bounds all of it, as in `SQLAlchemyProbe`. Nothing
    stays open between runs: what asks once a deploy holds no connection for the time in between.
    """

    def __init__(
        self, who: str, target: Engine | AsyncEngine | str, work: Work, *, timeout: float
    ) -> None:
        if isinstance(target, str):
            from healthmw.probes._dsn import engine_from_url

            target = engine_from_url(target)
        self.app: Engine
        self.is_async: bool
        self.app, self.is_async = sync_engine(
            who, target, takes="an Engine, an AsyncEngine or a URL"
        )
        self._work = work
        self._timeout = check_timeout(timeout)
        self._sync = PerProcess(self._make_own)
        self._async = PerLoop(self._make_own, _close_async)

    def __str__(self) -> str:
        return show_engine(self.app)

    def run(self) -> Outcome | Awaitable[Outcome]:
        """Go once: at once for an `Engine`, else by a coroutine."""
        return self._run_async() if self.is_async else self._run_sync()

    async def aclose(self) -> None:
        """See that no connection is left open, now or when the run under way ends."""
        own = self._sync.pop()
        if own is not None:
            own.retire()
        if self.is_async:
            await self._async.aclose()

    def _make_own(self) -> OwnConnection:
        from healthmw.probes._sqlalchemy_own import OwnConnection

        return OwnConnection(self.app, timeout=self._timeout, once=True)

    def _run_sync(self) -> Outcome:
        started = time.monotonic()
        own = self._sync.get()
        try:
            with own.held(self._timeout):
                found = self._do(own, started + self._timeout)
        except TimeoutError as exc:
            raise self._late() from exc
        return with_latency(found, time.monotonic() - started)

    async def _run_async(self) -> Outcome:
        require_asyncio("SQLAlchemy's AsyncEngine", instead="pass a sync Engine on trio")
        started = time.monotonic()
        try:
            with anyio.fail_after(self._timeout):
                own = await self._async.get()
                work = partial(self._do_async, own, started + self._timeout)
                # aiosqlite's thread can't be cancelled; SQLite's own timeout ends it.
                is_file = self.app.dialect.name == "sqlite"
                found = await (own.undisturbed.run(work) if is_file else work())
        except TimeoutError as exc:
            raise self._late() from exc
        return with_latency(found, time.monotonic() - started)

    async def _do_async(self, own: OwnConnection, until: float) -> Outcome:
        from sqlalchemy.util import greenlet_spawn

        async with own.async_lock:
            return await greenlet_spawn(self._do, own, until)

    def _do(self, own: OwnConnection, until: float) -> Outcome:
        from healthmw.probes._sqlalchemy_own import within

        with self._plainly():
            file = sqlite_file(self.app)
            if file is not None:
                check_file(file)
            with self.app.connect() if is_in_memory(self.app) else own.use(until) as connection:
                left = max(0.0, until - time.monotonic())
                with nullcontext() if self.is_async else within(left, connection):
                    return self._work(connection)

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        from sqlalchemy.exc import DBAPIError

        from healthmw.probes._sqlalchemy_own import plain

        try:
            yield
        except DBAPIError as exc:
            raise plain(exc, self.app.url) from exc

    def _late(self) -> ProbeTimeoutError:
        return ProbeTimeoutError(f"no answer within {self._timeout:g} s")


async def _close_async(own: OwnConnection) -> None:
    with anyio.move_on_after(_CLOSE_LIMIT, shield=True):
        async with own.async_lock:
            own.retire()
