"""`Health`: the registry of checks, their groups, and the life of what runs in the background."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

from healthmw import _native
from healthmw._background import Background
from healthmw._change_log import log_result
from healthmw._check import Check
from healthmw._fork import each, in_child, notice
from healthmw._jitter import draw as draw_jitter
from healthmw._listeners import Listener, Listeners, StatusChange, instance_id
from healthmw._loop import current_loop
from healthmw._model import Reason, Report, Result, Status
from healthmw._native import RLock
from healthmw._options import check_function, name_of, names, seconds
from healthmw._portal import PORTAL
from healthmw._registry import Registry
from healthmw._release import release_id
from healthmw._reports import Asked, Reports
from healthmw._runner import Runner
from healthmw._threads import THREADS
from healthmw._timings import warn_of_checks
from healthmw._view import About, about

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from types import TracebackType

    from healthmw._breaker import CircuitBreaker
    from healthmw._circuit import Circuit
    from healthmw._history import History
    from healthmw._probe import Probe
    from healthmw.access import Authorizer
    from healthmw.side import SideServer

logger = logging.getLogger("healthmw")

_P = TypeVar("_P", bound="Callable[[], Any]")


class Health:
    """The checks of one app, and their verdicts.

    `release` names what runs here and is part of every answer. Without it, the environment tells:
    `RELEASE`, what Heroku, Render, Fly.io, Railway or Cloud Run set, or `GIT_COMMIT` and its like;
    `""` shows none. `service`, `version`, `description` and `links` (relations to URLs) are what
    the app says of itself on the status page and in JSON.

    `max_age` is how long a result is served from memory (seconds); `deadline` is when an answer
    leaves, whatever is still missing (seconds). `clock` gives monotonic seconds and `random` a
    number from 0 to 1, for tests.

    Use as an async context manager to start and stop background checks and to close the probes; the
    middlewares do so by themselves. Its own state is guarded by one lock; it may be used from any
    thread and any event loop, and in the children of a `fork`.
    """

    def __init__(
        self,
        *,
        release: str | None = None,
        service: str | None = None,
        version: str | None = None,
        description: str = "",
        links: Mapping[str, str] | None = None,
        max_age: float = 1.0,
        deadline: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = draw_jitter,
    ) -> None:
        self.release: str | None = release_id(release, os.environ)
        self.about: About = about(
            service=service, version=version, description=description, links=links or {}
        )
        self.max_age: float = seconds("max_age", max_age, zero=True)
        self.deadline: float = seconds("deadline", deadline)
        check_function("clock", clock)
        check_function("random", random)
        self.clock = clock
        self._random = random
        self._registry = Registry()
        self._runners = self._registry.runners
        self._circuits: dict[str, Circuit] = {}  # kept for their breakers, which hold them weakly
        self._started: set[str] = set()  # the checks that have been started once
        self._reports = Reports(self._registry, clock, self.release)
        self._side_servers: list[SideServer] = []
        self._listeners = Listeners()
        self._after_fork()
        _healths.add(self)

    def _after_fork(self) -> None:
        side_servers, self._side_servers = self._side_servers, []
        for server in side_servers:
            server._after_fork()  # noqa: SLF001 - the same house
        self._lock = RLock()
        self._reports.after_fork()
        self._entered = 0
        self._background = Background(random=self._random)
        self._listeners.after_fork()
        for runner in self._runners.values():
            runner.after_fork()

    # Registration

    def add(
        self,
        name: str,
        probe: Probe,
        *,
        critical: bool = True,
        timeout: float = 2.0,
        max_age: float | None = None,
        failure_max_age: float | None = None,
        per_hour: float | None = None,
        interval: float | None = None,
        stale_after: float | None = None,
        failure_threshold: int = 1,
        success_threshold: int = 1,
        groups: Iterable[str] = (),
        breaker: CircuitBreaker | None = None,
        passive: bool = False,
        description: str = "",
    ) -> Check:
        """Register `probe` under `name` and return its check.

        - `critical`: whether a failure fails the app, or only degrades it.
        - `timeout`: how long one run may take, in seconds.
        - `max_age`: how long its result is served from memory (seconds; `Health`'s, if None). At 0
          nothing is kept: a run is shared by those alone who ask while it is under way, or just as
          its result is handed out.
        - `failure_max_age`: the same for a failure (`max_age`, if None), so that a recovery is seen
          sooner, or what is down is asked less.
        - `per_hour`: at most so many runs an hour in this process, evenly spaced, whatever asks
          (`fresh`, the breaker's trials); in between the last result is served, with its true age.
        - `interval`: run it in the background so often (seconds) and only read on request.
        - `stale_after`: the age (seconds) at which a background result counts as UNKNOWN; twice the
          interval and the timeout, if None.
        - `failure_threshold`, `success_threshold`: how many results in a row turn the verdict.
        - `groups`: `"live"` or groups of your own to be in beside `ready`; `["release"]` alone
          keeps it out of `ready`.
        - `breaker`: a `CircuitBreaker`, fed by this probe and by guarded calls.
        - `passive`: let successful guarded calls count as evidence in place of runs of the probe.
        - `description`: a line for the authorised, on the status page and in JSON.

        Raises `ValueError` for options that make no sense, naming the option.
        """
        check = Check(
            name,
            probe,
            critical=critical,
            timeout=timeout,
            max_age=self.max_age if max_age is None else max_age,
            failure_max_age=failure_max_age,
            per_hour=per_hour,
            interval=interval,
            stale_after=stale_after,
            failure_threshold=failure_threshold,
            success_threshold=success_threshold,
            groups=groups,
            breaker=breaker,
            passive=passive,
            description=description,
        )
        with self._lock:
            self._registry.admit(check)
            if breaker is not None:
                breaker._use(self.clock, self._random)  # noqa: SLF001 - the same house
            runner = Runner(check, self.clock, self._reports.outdated, self._on_change)
            if breaker is not None:
                from healthmw._circuit import Circuit

                circuit = self._circuits[name] = Circuit(runner, self._reports, self._recover)
                breaker._watch(circuit)  # noqa: SLF001 - the same house
            check._look_again = functools.partial(self._look_again, runner)  # noqa: SLF001 - the same house
            # Anew each time: other threads may be looking at those there are.
            self._runners = self._registry.runners = {**self._runners, name: runner}
            self._reports.changed()
        if interval is not None and self._background.running:
            self.start()
        return check

    def probe(self, name: str, **policy: Any) -> Callable[[_P], _P]:
        """Register the decorated callable as `add()` does, and return it unchanged."""
        name_of("name", name)  # here: without it, `@health.probe` would register nothing

        def register(probe: _P) -> _P:
            self.add(name, probe, **policy)
            return probe

        return register

    def group(
        self,
        name: str,
        *,
        checks: Iterable[str] = (),
        codes: Mapping[Status, int] | Mapping[str, int] | None = None,
    ) -> None:
        """Define a group of your own, or change the status codes of a built-in one.

        `checks` names members; a check can also name the group (`groups=`). Of the built-in groups
        `live` alone takes `checks`. `codes` maps statuses to HTTP status codes, and is laid over
        the defaults: OKAY from 200 to 299, UNKNOWN and FAILED from 400 to 599, DEGRADED either. The
        group answers at `/<name>`. Raises `ValueError` for what can't be.
        """
        with self._lock:
            self._registry.define(name, checks, codes)
            self._reports.changed()

    @property
    def checks(self) -> Mapping[str, Check]:
        """The checks by name, in the order of registration."""
        return {name: runner.check for name, runner in self._runners.items()}

    def check(self, name: str) -> Check:
        """Return the check `name`. Raises `ValueError` when there is none."""
        runner = self._runners.get(name)
        if runner is None:
            raise ValueError(f"there is no check {name!r}, only {', '.join(self._runners)}")
        return runner.check

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups, built-in ones first."""
        return tuple(self._registry.groups)

    def members(self, group: str) -> tuple[str, ...]:
        """Return the names of the checks of `group` (of the check of that name: itself).

        Raises `ValueError` when nothing has that name.
        """
        return tuple(runner.check.name for runner in self._registry.members(group))

    def history(self, name: str) -> History:
        """Return what the check `name` remembers of its past. Raises `ValueError` for no check."""
        return self._runners[self.check(name).name].recorder.snapshot(self.clock())

    def __contains__(self, name: object) -> bool:
        """Tell whether `name` is a check or a group."""
        return name in self._runners or name in self._registry.groups

    def validate(self) -> None:
        """Raise `ValueError` for a group of the user's own that names nothing."""
        self._registry.validate()

    # Verdicts

    async def run(
        self, group: str = "ready", *, fresh: bool = False, only: Collection[str] | None = None
    ) -> Report:
        """Return the report of `group` (or of the check of that name).

        Results that are young enough are served from memory, unless `fresh`. Checks that have to
        run do so at once, each under its timeout; the report leaves at the deadline. With `only`,
        no other check of the group is run or counts. Raises `ValueError` when nothing has that
        name, and for an `only` that is empty or names what is not in the group.
        """
        return await self._run(self._asked(group, fresh=fresh, only=only))

    def _asked(self, group: str, *, fresh: bool, only: Iterable[str] | None) -> Asked:
        chosen = None if only is None else names("only", only)
        return Asked(group, self.deadline, fresh=fresh, only=chosen)

    async def _run(self, asked: Asked) -> Report:
        here = current_loop()
        return await self._reports.get(asked, here, lambda: here or PORTAL.loop())

    async def _run_aside(self, asked: Asked) -> Report:
        """Do what `run()` does, on an event loop that isn't the app's, for probes on the app's."""
        self._start(aside=True)
        return await self._reports.get(asked, current_loop(), self._background.loop)

    def run_sync(
        self, group: str = "ready", *, fresh: bool = False, only: Collection[str] | None = None
    ) -> Report:
        """Do what `run()` does, from a thread without an event loop."""
        notice()
        asked = self._asked(group, fresh=fresh, only=only)
        return self._reports.get_sync(asked, self._background.loop)

    def peek(self, group: str) -> Report | None:
        """Return the report of `group` if it can be served from memory."""
        return self._reports.peek(group)

    def last(self, group: str = "ready") -> Report:
        """Return the report of `group` from what is known, however old: nothing is run.

        A background result that is too old is UNKNOWN, for the reason `stale`. Raises `ValueError`
        when nothing has that name.
        """
        return self._reports.last(group)

    # Change

    def drain(self) -> None:
        """Begin to stop: `ready` fails from now on, `live` does not, and the app goes on serving.

        There is no way back: who has been told to send no more traffic must not be told otherwise.
        """
        before = self._reports.drain()
        if before is None:
            return
        old, new = before.status, Status.FAILED
        try:
            self._tell(None, old=old, new=new, reason=Reason.DRAINING, critical=True)
        finally:  # a log may be broken
            logger.info("draining: ready fails from now on")

    @property
    def draining(self) -> bool:
        """Whether `drain()` was called."""
        return self._reports.draining

    def _on_change(self, check: Check, old: Result, new: Result, failure: str) -> None:
        """Tell of a change of a check's verdict: listeners first, for a log may take its time."""
        try:
            self._tell(
                check.name,
                old=old.status,
                new=new.status,
                reason=new.reason,
                critical=check.critical,
                detail=new.detail,
            )
        finally:
            log_result(check, old, new, failure)

    def _recover(self, runner: Runner) -> None:
        notice()
        self._background.recover(runner)

    def _look_again(self, runner: Runner) -> None:
        # Where no thread is to be had, or no clock here, the next who asks tries again.
        with contextlib.suppress(OSError, RuntimeError, MemoryError):
            if runner.known() is None:
                self._recover(runner)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(event)` with a `StatusChange` for each change of a check's verdict.

        The first result of a check is a change too (from UNKNOWN), and so is `drain()`. The
        listener, sync or async, is called on a thread of its own, an async one on an asyncio loop
        of that thread: it can't delay a check or another listener, what it raises is logged, and
        while it hangs at most 100 events wait for it. An async one has 30 s for each event. Returns
        what ends the subscription.
        """
        return self._listeners.add(listener)

    @property
    def events_dropped(self) -> int:
        """How many events have not been told because a listener was too slow."""
        return self._listeners.dropped

    def _tell(
        self,
        check: str | None,
        *,
        old: Status,
        new: Status,
        reason: Reason,
        critical: bool,
        detail: str = "",
    ) -> None:
        if not self._listeners:
            return
        event = StatusChange(
            check=check,
            old=old,
            new=new,
            reason=reason,
            critical=critical,
            detail=detail,
            when=datetime.now(UTC),
            report=self.last(),
            instance=instance_id(),
        )
        self._listeners.put(event)

    # Life

    def start(self) -> None:
        """Start what runs in the background, on this thread's event loop if it has one.

        Safe to call again. The middlewares call it.
        """
        self._start()

    def _start(self, *, aside: bool = False) -> None:
        notice()
        runners = list(self._runners.values())
        if len(runners) > len(self._started):
            self._judge_times(runners)
        self._background.start(runners, aside=aside)
        for runner in runners:
            if runner.check.refusing:  # since before a `fork`, or before the last `aclose()`
                self._background.recover(runner)

    def _judge_times(self, runners: Iterable[Runner]) -> None:
        with self._lock:
            new = [r.check for r in runners if r.check.name not in self._started]
            self._started.update(check.name for check in new)
        warn_of_checks(new, self.deadline)

    def serve(
        self,
        *,
        port: int | None = None,
        host: str = "127.0.0.1",
        unix_socket: str | os.PathLike[str] | None = None,
        path: str = "/health_check",
        show: str = "names",
        authorize: Authorizer | Iterable[Authorizer] | None = None,
        stalled_after: float | None = None,
    ) -> SideServer:
        """Serve the endpoint alone, in a thread of its own, and return the server.

        For processes that have no web app, and as a management port of those that have one. The
        server answers at `http://host:port` below `path`, and there without `path` too (`/live`);
        or on `unix_socket`. Port 0 lets the system choose: see `SideServer.port`. `show` and
        `authorize` are as in `healthmw.asgi.HealthMiddleware`. It stops with `aclose()`.

        With `stalled_after` (seconds) the check `main_loop`, in `ready` and in `live`, fails when
        the app's event loop has not moved for so long. That is the loop on which this was called,
        or else the one on which the app is started. Whoever has no event loop calls
        `SideServer.beat()` in its main loop, more often than that.

        Raises `OSError` where the address can't be had, and `ValueError` for options that make no
        sense.
        """
        from healthmw.side import SideServer

        self.start()
        server = SideServer(
            self,
            port=port,
            host=host,
            unix_socket=unix_socket,
            path=path,
            show=show,
            authorize=authorize,
            stalled_after=stalled_after,
        )
        self._side_servers.append(server)
        return server

    async def aclose(self) -> None:
        """Stop what runs in the background and give back what the probes opened.

        A circuit that is open, or opens later, is tried when it is started again, or asked.
        """
        side_servers, self._side_servers = self._side_servers, []
        for server in side_servers:
            server.close()
        try:
            await self._background.stop(list(self._runners.values()))
            await self._listeners.farewell()
        finally:  # whoever closes may be cancelled
            self._listeners.close()

    async def __aenter__(self) -> Self:
        self.validate()
        self.start()
        self._entered += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered -= 1
        if not self._entered:
            await self.aclose()


_healths: weakref.WeakSet[Health] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    _native.after_fork()
    THREADS.after_fork()
    PORTAL.after_fork()
    each([health._after_fork for health in _healths])  # noqa: SLF001 - this module's own


in_child(_after_fork_in_child)
