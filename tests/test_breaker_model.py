"""The breaker against a reference that keeps everything and works it all out anew each time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from healthmw import CircuitBreaker
from healthmw._breaker_state import BreakerEvent, BreakerState
from tests.breaker_kit import CLOSED, HALF_OPEN, OPEN, Clock

if TYPE_CHECKING:
    from healthmw._breaker import Permit

OVERRULED = {
    "force_open": BreakerState.FORCED_OPEN,
    "disable": BreakerState.DISABLED,
    "metrics_only": BreakerState.METRICS_ONLY,
    "reset": CLOSED,
}

PASSING = {CLOSED, BreakerState.DISABLED, BreakerState.METRICS_ONLY}


@dataclass(eq=False)
class Ticket:
    """The reference's permit."""

    stretch: int
    since: float
    answered: bool = False


@dataclass
class Reference:
    """What a breaker should do, in as few ideas as possible and with no thought for speed."""

    options: dict[str, Any]
    drawn: float
    state: BreakerState = CLOSED
    stretch: int = 0  # goes up with every transition
    row: int = 0
    results: list[tuple[float, bool, bool]] = field(default_factory=list)  # when, failed, slow
    out: list[Ticket] = field(default_factory=list)  # trials under way
    reopened: int = 0  # openings in a row without a close between them
    due: float = math.inf
    shown: list[tuple[float, bool, bool]] = field(default_factory=list)
    rejected: int = 0
    opened: int = 0
    totals: list[int] = field(default_factory=lambda: [0, 0])  # successes, failures
    changes: list[tuple[BreakerState, BreakerState, float]] = field(default_factory=list)

    def option(self, name: str, default: Any) -> Any:
        value = self.options.get(name)
        return default if value is None else value

    @property
    def windowed(self) -> bool:
        return "window_calls" in self.options or "window_seconds" in self.options

    @property
    def in_a_row(self) -> float:
        return float(self.option("consecutive_failures", math.inf if self.windowed else 5))

    def enter(self, state: BreakerState, now: float) -> None:
        if state is not self.state:
            self.changes.append((self.state, state, now))
        self.state = state
        self.stretch += 1
        self.results, self.out = [], []

    def overrule(self, state: BreakerState, now: float) -> None:
        self.enter(state, now)
        self.row = self.reopened = 0
        self.due = math.inf

    def open(self, now: float) -> None:
        self.shown = self.counted(now)
        wait = self.option("open_for", 5.0)
        for _ in range(self.reopened):
            wait = min(wait * self.option("backoff", 2.0), self.option("open_for_max", 30.0))
        self.due = now + wait * (1.0 - self.option("jitter", 0.1) * self.drawn)
        self.reopened += 1
        self.opened += 1
        self.enter(OPEN, now)

    def acquire(self, now: float, *, trial: bool) -> Ticket | None:
        self.pass_time(now)
        if self.state in PASSING:
            return Ticket(self.stretch, now)
        if trial and self.state is OPEN and now >= self.due:
            self.enter(HALF_OPEN, now)
        room = self.option("half_open_calls", 1) - len(self.out) - len(self.results)
        if not trial or self.state is not HALF_OPEN or room <= 0:
            self.rejected += 1
            return None
        ticket = Ticket(self.stretch, now)
        self.out.append(ticket)
        return ticket

    def pass_time(self, now: float) -> None:
        for ticket in list(self.out):
            overdue = ticket.since + self.option("half_open_max_wait", 30.0)
            if ticket in self.out and now >= overdue:
                self.take(ticket, "failure", overdue)

    def answer(self, ticket: Ticket, outcome: str, now: float) -> None:
        self.pass_time(now)
        if not ticket.answered:
            self.take(ticket, outcome, now)

    def take(self, ticket: Ticket, outcome: str, now: float) -> None:
        ticket.answered = True
        if ticket.stretch != self.stretch:
            return
        if ticket in self.out:
            self.out.remove(ticket)
        if outcome not in {"success", "failure"} or self.state is BreakerState.DISABLED:
            return
        failed = outcome == "failure"
        slow = now - ticket.since >= self.option("slow_call_duration", math.inf)
        self.results.append((now, failed, slow))
        self.row = self.row + 1 if failed else 0
        self.totals[failed] += 1
        if self.state is CLOSED:
            self.judge_calls(now)
        elif self.state is HALF_OPEN:
            self.judge_trials(now)

    def judge_calls(self, now: float) -> None:
        seen = self.counted(now)
        least = min(10, self.option("window_calls", 10))
        enough = self.windowed and len(seen) >= self.option("minimum_calls", least)
        if self.row >= self.in_a_row or (enough and self.too_many(seen, len(seen))):
            self.open(now)

    def judge_trials(self, now: float) -> None:
        wanted = self.option("half_open_calls", 1)
        one_is_enough = not math.isinf(self.in_a_row)
        failed = any(failed for _, failed, _ in self.results)
        if (one_is_enough and failed) or self.too_many(self.results, wanted):
            self.open(now)
        elif len(self.results) == wanted:
            self.enter(CLOSED, now)
            self.row = self.reopened = 0

    def too_many(self, seen: list[tuple[float, bool, bool]], of: int) -> bool:
        failures = sum(failed for _, failed, _ in seen)
        slow = sum(slow for _, _, slow in seen)
        if failures / of >= self.option("failure_rate", 0.5):
            return True
        timed = "slow_call_duration" in self.options
        return bool(timed and slow / of >= self.option("slow_call_rate", 0.5))

    def counted(self, now: float) -> list[tuple[float, bool, bool]]:
        if self.state is OPEN:
            return self.shown
        if self.state is HALF_OPEN:
            return self.results
        if "window_calls" in self.options:
            return self.results[-self.options["window_calls"] :]
        if "window_seconds" in self.options:
            tenth = self.options["window_seconds"] / 10
            return [seen for seen in self.results if seen[0] // tenth > now // tenth - 10]
        return self.results

    def retry_after(self, now: float) -> float | None:
        if self.state is OPEN:
            return max(0.0, self.due - now)
        return 0.0 if self.state is HALF_OPEN else None


# All times are multiples of 1/8, so that sums are exact and both sides agree to the last bit.
eighths = st.integers(1, 400).map(lambda number: number / 8)
shares = st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0])

windows: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"window_calls": st.integers(2, 8)},
        optional={"failure_rate": shares, "minimum_calls": st.integers(1, 2)},
    ),
    st.fixed_dictionaries(
        {"window_seconds": st.sampled_from([1.25, 10.0, 40.0]), "minimum_calls": st.integers(1, 6)},
        optional={"failure_rate": shares, "slow_call_duration": eighths},
    ),
    st.fixed_dictionaries(
        {"window_calls": st.integers(2, 8), "slow_call_duration": eighths},
        optional={"slow_call_rate": shares},
    ),
)

rest = st.fixed_dictionaries(
    {},
    optional={
        "consecutive_failures": st.integers(1, 4),
        "half_open_calls": st.integers(1, 4),
        "half_open_max_wait": eighths,
        "open_for": st.sampled_from([0.125, 5.0, 20.0]),
        "open_for_max": st.sampled_from([20.0, 25.0]),
        "backoff": st.sampled_from([1.0, 1.5, 2.0]),
        "jitter": st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    },
)


class BreakerAgainstReference(RuleBasedStateMachine):
    breaker: CircuitBreaker
    reference: Reference

    @initialize(window=windows, others=rest, drawn=st.sampled_from([0.0, 0.5, 1.0]))
    def begin(self, window: dict[str, Any], others: dict[str, Any], drawn: float) -> None:
        self.clock = Clock()
        self.pairs: list[tuple[Permit, Ticket]] = []
        self.events: list[BreakerEvent] = []
        self.reference = Reference(window | others, drawn)
        self.breaker = CircuitBreaker(
            **window, **others, clock=self.clock, random=lambda: self.reference.drawn
        )
        self.breaker.subscribe(self.events.append)

    @rule(trial=st.booleans(), times=st.integers(1, 3))
    def acquire(self, trial: bool, times: int) -> None:
        for _ in range(times):
            permit = self.breaker.try_acquire(trial=trial)
            ticket = self.reference.acquire(self.clock.now, trial=trial)
            assert (permit is None) == (ticket is None)
            if permit is not None and ticket is not None:
                self.pairs.append((permit, ticket))

    @precondition(lambda self: self.pairs)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["success", "failure", "failure", "ignored", "cancelled"]),
        keep=st.booleans(),
    )
    def answer(self, data: st.DataObject, outcome: str, keep: bool) -> None:
        index = data.draw(st.integers(0, len(self.pairs) - 1))
        permit, ticket = self.pairs[index] if keep else self.pairs.pop(index)
        getattr(permit, outcome)()
        self.reference.answer(ticket, outcome, self.clock.now)

    @precondition(lambda self: self.pairs)
    @rule(outcome=st.sampled_from(["success", "failure"]))
    def answer_all(self, outcome: str) -> None:
        for permit, ticket in self.pairs:
            getattr(permit, outcome)()
            self.reference.answer(ticket, outcome, self.clock.now)
        self.pairs.clear()

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        self.pairs.pop(data.draw(st.integers(0, len(self.pairs) - 1)))

    @rule(seconds=eighths)
    def wait(self, seconds: float) -> None:
        self.clock.forward(seconds)

    @precondition(lambda self: self.breaker.retry_after)
    @rule()
    def wait_for_the_trial(self) -> None:
        self.clock.now = self.reference.due

    @rule(order=st.sampled_from(sorted(OVERRULED)))
    def overrule(self, order: str) -> None:
        # What is overdue by now happened before.
        self.reference.pass_time(self.clock.now)
        assert self.breaker.state is self.reference.state
        getattr(self.breaker, order)()
        self.reference.overrule(OVERRULED[order], self.clock.now)

    @rule(drawn=st.sampled_from([0.0, 0.5, 1.0]))
    def draw(self, drawn: float) -> None:
        self.reference.pass_time(self.clock.now)
        assert self.breaker.state is self.reference.state
        self.reference.drawn = drawn

    @invariant()
    def both_agree(self) -> None:
        now, reference = self.clock.now, self.reference
        reference.pass_time(now)
        snapshot = self.breaker.snapshot()
        counted = reference.counted(now)
        assert snapshot.state is reference.state
        assert self.breaker.state is reference.state
        assert self.breaker.available is (reference.state in PASSING)
        assert snapshot.calls == len(counted)
        assert snapshot.failures == sum(failed for _, failed, _ in counted)
        assert snapshot.successes == sum(not failed for _, failed, _ in counted)
        assert snapshot.slow == sum(slow for _, _, slow in counted)
        assert snapshot.consecutive_failures == reference.row
        assert snapshot.retry_after == reference.retry_after(now)
        assert self.breaker.retry_after == snapshot.retry_after
        assert snapshot.rejected == reference.rejected
        assert snapshot.opened_count == reference.opened
        assert [snapshot.total_successes, snapshot.total_failures] == reference.totals
        changes = [(e.old, e.new, e.at) for e in self.events if e.kind == "state_changed"]
        assert changes == reference.changes
        assert len(self.events) - len(changes) == reference.rejected


TestBreakerAgainstReference = BreakerAgainstReference.TestCase
TestBreakerAgainstReference.settings = settings(
    max_examples=200, stateful_step_count=60, deadline=None
)
