"""The reports of one `Health`: made of its checks' results, kept while they hold, and shared."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from healthmw._crowd import Begun, Crowd
from healthmw._flight import wait_for, wait_for_sync
from healthmw._frozen import FrozenDict
from healthmw._model import NOTHING_MEASURED, Reason, Report, Result, Status
from healthmw._native import RLock
from healthmw._runner import Run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from healthmw._loop_protocol import Loop, Promise
    from healthmw._registry import Registry
    from healthmw._runner import Runner


class Asked(NamedTuple):
    """What a reader asks for: a group, within so many seconds."""

    group: str
    deadline: float
    fresh: bool
    only: Collection[str] | None


class Held(NamedTuple):
    """A report, and until when it may be served as it is, by the injected clock."""

    report: Report
    until: float


class Reports:
    """Answers readers, from memory where it can. Guarded by its lock."""

    def __init__(self, registry: Registry, clock: Callable[[], float], release: str | None) -> None:
        self._registry = registry
        self._clock = clock
        self._release = release
        self._latched: dict[str, Held] = {}
        self.draining = False
        self.after_fork()

    def after_fork(self) -> None:
        """Forget every report, and who waits for one: they are the parent's."""
        self._lock = RLock()
        self._latched.clear()
        self.held: dict[str, Held] = {}
        self._crowds: dict[str, Crowd] = {}

    def changed(self) -> None:
        """Forget every report that may have changed, and let nobody join who waits for one."""
        with self._lock:
            self.outdated()
            self._crowds = {}

    def outdated(self) -> None:
        """Forget every report that a new result may have changed; who waits for one has it soon."""
        with self._lock:
            self.held = dict(self._latched)

    def circuit_changed(self) -> None:
        """Forget the same in the very moment that a circuit changes, whoever holds which lock.

        A report that is being made goes to where it is forgotten, too: see `_conclude`.
        """
        self.held = dict(self._latched)

    def drain(self) -> Report | None:
        """Fail `ready` from now on. Return its report of before; None if it is done already."""
        with self._lock:
            if self.draining:
                return None
            before = self.last("ready")
            self.draining = True
            self.changed()
            return before

    def peek(self, group: str) -> Report | None:
        """Return the report of `group` if it can be served from memory."""
        held = self.held.get(group)
        if held is None:
            return None
        report, until = held
        return report if self._clock() < until else None

    def last(self, group: str) -> Report:
        """Return the report of `group` from what is known, however old."""
        held = self.peek(group)
        if held is not None:
            return held
        with self._lock:
            runners = self._registry.members(group)
            return self._report(group, {r.check.name: r.last_known()[0] for r in runners})

    def standing(self, group: str) -> Report | None:
        """Return the report of `group` if all of its checks can be served from memory."""
        held = self.peek(group)
        if held is not None:
            return held
        with self._lock:
            known = {r.check.name: r.known() for r in self._registry.members(group)}
            results = {name: one[0] for name, one in known.items() if one is not None}
            return self._report(group, results) if len(results) == len(known) else None

    async def get(self, asked: Asked, here: Loop | None, loop: Callable[[], Loop]) -> Report:
        """Return the report to a reader on the loop `here`; what has to run does so on `loop`.

        Raises `RuntimeError` where something has to run and there is no `here` to wait on.
        """
        held = self._served(asked)
        if held is not None:
            return held
        group = asked.group
        shared = asked.only is None and not asked.fresh
        joined = self.join(group, asked.deadline) if shared else None
        if joined is not None:
            return await joined
        deadline = time.monotonic() + asked.deadline
        begun = self._begin(asked, loop)
        if not begun.runs:
            return self._conclude(asked, begun)
        if here is None:
            raise RuntimeError("no asyncio or trio runs here to wait on: a thread uses run_sync()")
        crowd = Crowd(begun, here, deadline)
        # For a breaker's trial nobody else is to wait; nor who may be answered from memory, for
        # what is fresh.
        tried = any(self._registry.runners[name].check.refusing for name in begun.runs)
        if shared and not tried:
            self._crowds[group] = crowd
        told = None
        try:
            await wait_for([*begun.runs.values()], deadline, here)
            while self._begin_again(begun, loop) and time.monotonic() < deadline:
                await wait_for([*begun.runs.values()], deadline, here)
            report = self._conclude(asked, begun)
            told = report if begun.complete else None
        finally:
            try:
                with self._lock:  # a thread that has something changed may be at it, too
                    if self._crowds.get(group) is crowd:
                        del self._crowds[group]
            finally:  # they have nobody else to wake them
                crowd.tell(told)
        return report

    def join(self, group: str, deadline: float) -> Awaitable[Report] | None:
        """Return a wait for what others on this event loop wait for, if any do.

        They wait for all of a group: that is not for who has asked for some.
        """
        crowd = self._crowds.get(group)
        if crowd is None:
            return None
        until = time.monotonic() + deadline
        told = crowd.join(until)
        return None if told is None else self._along(crowd, told, group, deadline, until)

    async def _along(
        self, crowd: Crowd, told: Promise, group: str, deadline: float, until: float
    ) -> Report:
        try:
            report: Report | None = await told
        except BaseException:
            crowd.leave(told)
            raise
        if report is None:
            begun = crowd.begun
            await wait_for([*begun.runs.values()], until, crowd.loop)
            report = self._conclude(Asked(group, deadline, fresh=False, only=None), begun)
        return report

    def get_sync(self, asked: Asked, loop: Callable[[], Loop]) -> Report:
        """Return the report to a reader in a thread without an event loop."""
        held = self._served(asked)
        if held is not None:
            return held
        begun = self._begin(asked, loop)
        if begun.runs:
            deadline = time.monotonic() + asked.deadline
            wait_for_sync([*begun.runs.values()], deadline)
            while self._begin_again(begun, loop) and time.monotonic() < deadline:
                wait_for_sync([*begun.runs.values()], deadline)
        return self._conclude(asked, begun)

    def _served(self, asked: Asked) -> Report | None:
        """Return what answers without a look at any check. A latched group is never asked anew."""
        if asked.only is not None or (asked.fresh and asked.group not in self._latched):
            return None
        return self.peek(asked.group)

    def _begin(self, asked: Asked, loop: Callable[[], Loop]) -> Begun:
        begun = Begun({}, {})
        for runner in self._registry.chosen(asked.group, asked.only):
            name = runner.check.name
            seen = runner.check.latest
            known = None if asked.fresh else runner.known()
            if self.draining and asked.group == "ready":
                known = runner.last_known()
            if known is None:
                started = runner.begin(loop, seen=seen, fresh=asked.fresh)
            else:
                started = known[0]
            if isinstance(started, Run):
                begun.runs[name] = started
            else:
                begun.results[name] = started
        return begun

    def _begin_again(self, begun: Begun, loop: Callable[[], Loop]) -> bool:
        """Begin on `loop` what was given up as another one ended; tell whether anything was."""
        again = [name for name, run in begun.runs.items() if run.given_up_by_another(loop)]
        for name in again:
            started = self._registry.runners[name].begin(loop, fresh=True)
            if isinstance(started, Run):
                begun.runs[name] = started
            else:
                del begun.runs[name]
                begun.results[name] = started
        return bool(again)

    def _conclude(self, asked: Asked, begun: Begun) -> Report:
        now = time.monotonic()
        group = asked.group
        # Under the lock from reading to keeping: `changed()` comes before or after, never between.
        with self._lock:
            reports = self.held
            kept = reports.get(group)
            if kept is not None and asked.only is None and begun.is_in(kept.report):
                return kept.report  # made for another who has waited for the same runs
            results: dict[str, Result] = {}
            until = math.inf
            for runner in self._registry.chosen(group, asked.only):
                result, good_until = self._outcome(runner, begun, now, asked.deadline)
                results[runner.check.name] = result
                until = min(until, good_until)
            report = self._report(group, results)
            if asked.only is not None:
                return report  # it is not what others ask for
            held = Held(report, until)
            if group in self._latched:  # passed since we began to look
                held = self._latched[group]
            elif group == "startup" and report.ok:
                held = self._latched[group] = Held(report, math.inf)
            reports[group] = held
        return held.report

    @staticmethod
    def _outcome(runner: Runner, begun: Begun, now: float, deadline: float) -> tuple[Result, float]:
        """Return the result of one check, and until when it may be held."""
        check = runner.check
        run = begun.runs.get(check.name)
        if run is None:
            known = runner.known()
            if known is not None:
                return known
            return begun.results.get(check.name, check.latest), -math.inf
        if run.result is None:  # the group's deadline came before the check's own timeout
            late = replace(
                check.latest,
                status=Status.FAILED,
                raw=Status.FAILED,
                reason=Reason.TIMEOUT,
                detail=f"not back within the group's deadline of {round(deadline, 2):g} s",
                duration=now - run.began,
                measurements=NOTHING_MEASURED,
            )
            return late, -math.inf
        if check.refusing and run.result.ok:  # it stands alone, or thresholds hide what it is
            return runner.refused(), -math.inf
        known = runner.known()
        if known is None or known[0] is not run.result:
            return run.result, -math.inf  # a newer one is in, or this one has opened the breaker
        return known

    def _report(self, group: str, results: dict[str, Result]) -> Report:
        status, reason, codes = self._registry.verdict(group, results)
        if group == "ready" and self.draining:
            status, reason = Status.FAILED, Reason.DRAINING
        return Report(
            group=group,
            status=status,
            code=codes[status],
            results=FrozenDict(results),
            reason=reason,
            release=self._release,
        )
