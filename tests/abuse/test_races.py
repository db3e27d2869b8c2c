"""One `Health` used by many threads and tasks at once, with switches between them where it hurts.

What is random is drawn from seeds; which thread comes first is not. So nothing here asserts how
many runs there were or how long they took, but what must hold however they were interleaved.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from healthmw import CircuitBreaker, Health, Reason, Report, Status
from healthmw.testing import ManualClock, ScriptedProbe
from tests.abuse.effort import times, tries
from tests.programs import run_program
from tests.waiting import InThread, foreign_threads, until, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import FrameType

AMPLE = 60.0
"""Seconds: the limit of runs that are to come back by themselves, on any machine."""

SEVERITY = [Status.OKAY, Status.DEGRADED, Status.UNKNOWN, Status.FAILED]


@pytest.fixture
def restless() -> Iterator[None]:
    """Have threads take turns all the time."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


class Watched:
    """A probe that knows how many of its calls are under way, and fails when told to."""

    def __init__(self, seed: int, *, is_async: bool) -> None:
        self.is_async = is_async
        self.fails = False
        self.calls = 0
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()
        self._random = random.Random(seed)

    def __call__(self) -> Any:
        return self._run_async() if self.is_async else self._run()

    def _run(self) -> None:
        with self._counted():
            if self._random.random() < 0.3:
                time.sleep(0.0005)
            self._end()

    async def _run_async(self) -> None:
        with self._counted():
            for _ in range(self._random.randrange(3)):
                await anyio.lowlevel.checkpoint()
            self._end()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.calls += 1
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def _end(self) -> None:
        if self.fails:
            raise ConnectionError("refused")


def see(report: Report) -> None:
    """See that a report is in itself what it says it is."""
    group = report.group in {"ready", "live", "startup", "release"}
    counted = [
        min(result.status, Status.DEGRADED) if group and not result.critical else result.status
        for result in report.results.values()
    ]
    worst = max(counted, key=SEVERITY.index)
    if report.reason is Reason.DRAINING:
        assert report.status is Status.FAILED
    else:
        assert report.status is worst
    passes = {Status.OKAY} if report.group == "release" else {Status.OKAY, Status.DEGRADED}
    assert (report.ok, report.code) == ((True, 200) if report.status in passes else (False, 503))
    for result in report.results.values():
        assert result.reason is not Reason.OKAY or result.raw is Status.OKAY


def at_once(number: int, work: Callable[[random.Random], None]) -> None:
    """Do the same in many threads, each with a seed of its own; all begin together."""
    ready = threading.Barrier(number, timeout=AMPLE)

    def begin(seed: int) -> None:
        ready.wait()
        work(random.Random(seed))

    threads = [InThread(lambda seed=seed: begin(seed)) for seed in range(number)]  # type: ignore[misc]  # seed is an int
    for thread in threads:
        thread.result()


# Threads


def a_health(*, max_age: float = 0.0) -> tuple[Health, dict[str, Watched]]:
    health = Health(max_age=max_age, deadline=AMPLE)
    probes = {
        name: Watched(number, is_async=number % 2 == 0)
        for number, name in enumerate(("database", "cache", "queue", "mail"))
    }
    for number, (name, probe) in enumerate(probes.items()):
        health.add(
            name,
            probe,
            critical=number < 2,
            timeout=AMPLE,
            failure_threshold=1 + number % 2,
            breaker=CircuitBreaker(
                consecutive_failures=2, open_for=0.002, open_for_max=0.004, half_open_max_wait=AMPLE
            )
            if number in {1, 2}
            else None,
        )
    return health, probes


@pytest.mark.parametrize("max_age", [0.0, 0.003])
@pytest.mark.usefixtures("restless")
def test_readers_writers_breakers_listeners_and_latecomers(max_age: float) -> None:
    health, probes = a_health(max_age=max_age)
    told: list[object] = []
    latecomers = iter(range(10_000))

    def subscribe_and_leave() -> None:
        leave = health.subscribe(told.append)
        health.check("cache").available  # noqa: B018 - to look is the point
        leave()
        leave()

    def work(draw: random.Random) -> None:
        acts: list[tuple[int, Callable[[], object]]] = [
            (30, lambda: see(health.run_sync(fresh=draw.random() < 0.3))),
            (10, lambda: see(health.run_sync(draw.choice([*probes, "startup", "release"])))),
            (5, lambda: see(health.run_sync(only=["cache", "mail"]))),
            (5, lambda: see(health.last())),
            (5, lambda: health.history(draw.choice([*probes]))),
            (5, lambda: [check.retry_after for check in health.checks.values()]),
            (4, subscribe_and_leave),
            (2, lambda: health.add(f"late{next(latecomers)}", lambda: None, timeout=AMPLE)),
            (2, lambda: setattr(draw.choice([*probes.values()]), "fails", draw.random() < 0.5)),
            (1, health.start),
        ]
        for _ in range(times(40)):
            _, act = draw.choices(acts, [weight for weight, _ in acts])[0]
            act()

    at_once(8, work)
    for probe in probes.values():
        assert probe.most == 1  # single flight, whoever asked
        probe.fails = False
    until_sync(lambda: health.run_sync(fresh=True).ok)
    see(health.run_sync())
    anyio.run(health.aclose)


@pytest.mark.usefixtures("restless")
def test_who_looks_sees_what_there_is_while_more_is_added() -> None:
    for _ in range(times(4)):
        health, _ = a_health()
        names, over = set(health.checks), threading.Event()

        def look(health: Health = health, names: Any = names, over: Any = over) -> None:
            while not over.is_set():
                assert health.checks.keys() >= names
                assert len(health.members("ready")) >= len(names)
                assert "live" in health.groups
                health.validate()
                health.start()

        threads = [InThread(look) for _ in range(3)]
        for number in range(100):
            health.add(f"late{number}", ScriptedProbe(), timeout=AMPLE)
            health.group(f"group{number}", checks=[f"late{number}"])
        over.set()
        for thread in threads:
            thread.result()


@pytest.mark.usefixtures("restless")
def test_after_drain_nobody_is_told_to_come() -> None:
    for _ in range(times(15)):
        health, _ = a_health(max_age=0.001)
        drained = threading.Event()

        def work(draw: random.Random, health: Health = health, done: Any = drained) -> None:
            for number in range(12):
                if number == 6 and draw.random() < 0.3:
                    health.drain()
                    done.set()
                was_drained = done.is_set()
                report = health.run_sync("ready", fresh=draw.random() < 0.2)
                see(report)
                if was_drained:
                    assert report.reason is Reason.DRAINING
                assert health.run_sync("live").ok
            health.drain()
            done.set()
            assert health.run_sync().reason is Reason.DRAINING
            assert health.last().reason is Reason.DRAINING

        at_once(6, work)
        anyio.run(health.aclose)


@pytest.mark.usefixtures("restless")
def test_startup_is_latched_by_whoever_sees_it_first() -> None:
    for seed in range(times(10)):
        health = Health(max_age=0, deadline=AMPLE)
        probe = Watched(seed, is_async=False)
        health.add("it", probe, timeout=AMPLE)
        passed = threading.Event()

        def work(draw: random.Random, health: Health = health, probe: Watched = probe,
                 passed: threading.Event = passed) -> None:  # fmt: skip
            for _ in range(10):
                probe.fails = draw.random() < 0.5
                was_passed = passed.is_set()
                report = health.run_sync("startup", fresh=draw.random() < 0.5)
                if report.ok:
                    passed.set()
                assert report.ok or not was_passed

        at_once(6, work)


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("options", [{}, {"window_calls": 50, "minimum_calls": 50}], ids=str)
def test_a_breaker_loses_no_call(options: dict[str, Any]) -> None:
    """In a breaker that never opens, every call that was answered is counted, once."""
    breaker = CircuitBreaker(consecutive_failures=10**9, failure_rate=None, **options)
    breaker.metrics_only()
    answered = [0, 0]
    lock = threading.Lock()

    def work(draw: random.Random) -> None:
        mine = [0, 0]
        for _ in range(times(300)):
            permit = breaker.try_acquire()
            assert permit is not None
            fails = draw.random() < 0.5
            if draw.random() < 0.2:
                permit.cancelled()
                permit.success()  # a second answer is none
                continue
            mine[fails] += 1
            if fails:
                permit.failure()
            else:
                permit.success()
            if draw.random() < 0.2:
                breaker.snapshot()
        with lock:
            answered[0] += mine[0]
            answered[1] += mine[1]

    at_once(8, work)
    snapshot = breaker.snapshot()
    assert [snapshot.total_successes, snapshot.total_failures] == answered


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("trials", [1, 3])
def test_a_breaker_s_trials_are_few_and_its_news_is_a_story(trials: int) -> None:
    breaker = CircuitBreaker(
        consecutive_failures=2,
        half_open_calls=trials,
        half_open_max_wait=AMPLE,
        open_for=1e-6,
        open_for_max=1e-5,
    )
    events: list[Any] = []
    breaker.subscribe(events.append)
    refused = 0
    lock = threading.Lock()

    def work(draw: random.Random) -> None:
        nonlocal refused
        for _ in range(times(150)):
            permit = breaker.try_acquire(trial=draw.random() < 0.7)
            if permit is None:
                with lock:
                    refused += 1
                continue
            if draw.random() < 0.1:
                time.sleep(0)
            ways: list[Callable[[], object]] = [permit.failure, permit.ignored, permit.cancelled]
            draw.choice([permit.success, *ways])()
            if draw.random() < 0.01:
                draw.choice([breaker.reset, breaker.force_open, breaker.reset])()
        breaker.reset()

    at_once(8, work)
    # Each change begins where the one before it ended, and nothing is told twice.
    changes = [event for event in events if event.kind == "state_changed"]
    for before, after in itertools.pairwise(changes):
        assert before.new is after.old
        assert before.new is not before.old
    assert breaker.snapshot().rejected == refused
    assert breaker.available
    for _ in range(10):
        permit = breaker.try_acquire()
        assert permit is not None
        permit.success()


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("trials", [1, 3])
def test_no_more_trials_are_out_than_there_may_be(trials: int) -> None:
    for _ in range(times(20)):
        clock = ManualClock()
        breaker = CircuitBreaker(
            consecutive_failures=1, half_open_calls=trials, open_for=1, jitter=0, clock=clock
        )
        permit = breaker.try_acquire()
        assert permit is not None
        permit.failure()
        clock.advance(1)
        out: list[object] = []

        def work(draw: random.Random, breaker: CircuitBreaker = breaker, out: Any = out) -> None:
            for _ in range(5):
                permit = breaker.try_acquire()
                if permit is not None:
                    out.append(permit)

        at_once(8, work)
        assert len(out) == trials


# Tasks


def on_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def on_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def on_eager_tasks(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks came with Python 3.12")

    def new_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_task_factory(factory)
        return loop

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def on_trio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    trio.run(main)


LOOPS = [on_asyncio, on_uvloop, on_eager_tasks, on_trio]


async def a_crowd(seed: int) -> None:  # noqa: C901 - a crowd's members are short functions
    """Many who ask and many who give up, with a probe that fails at times and a breaker."""
    draw = random.Random(seed)
    health, probes = a_health(max_age=draw.choice([0, 0, 0.001]))
    answers: list[Report] = []

    async def ask(patience: int | None) -> None:
        group = draw.choice(["ready", "ready", "release", *probes])
        fresh = draw.random() < 0.3
        if patience is None:
            answers.append(await health.run(group, fresh=fresh))
            return
        async with anyio.create_task_group() as tasks:

            async def give_up() -> None:
                for _ in range(patience):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()

            tasks.start_soon(give_up)
            await health.run(group, fresh=fresh)

    async def wander() -> None:
        for _ in range(10):
            draw.choice([*probes.values()]).fails = draw.random() < 0.4
            await anyio.lowlevel.checkpoint()
        for probe in probes.values():
            probe.fails = False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wander)
        for _ in range(30):
            tasks.start_soon(ask, draw.choice([None, draw.randrange(6)]))
            if draw.random() < 0.3:
                await anyio.lowlevel.checkpoint()
    for report in answers:
        see(report)
    with anyio.fail_after(AMPLE):
        while not (await health.run(fresh=True)).ok:  # noqa: ASYNC110 - asked for what is awaited
            await anyio.sleep(0.001)
    assert {probe.most for probe in probes.values()} == {1}
    with anyio.fail_after(AMPLE):
        await health.aclose()


@pytest.mark.parametrize("run", LOOPS)
def test_a_crowd_of_tasks_of_which_many_give_up(run: Callable[..., None]) -> None:
    for seed in range(times(12)):
        run(lambda seed=seed: a_crowd(seed))


async def a_crowd_that_drains(seed: int) -> None:
    """Many ask while one drains; who asks after that is told so, and the process lives on."""
    draw = random.Random(seed)
    health, _ = a_health(max_age=draw.choice([0, 0.001]))
    drained = False

    async def ask() -> None:
        for _ in range(4):
            was_drained = drained
            report = await health.run(fresh=draw.random() < 0.3)
            see(report)
            assert report.reason is Reason.DRAINING or not was_drained
            assert (await health.run("live")).ok
            await anyio.lowlevel.checkpoint()

    async def drain() -> None:
        nonlocal drained
        for _ in range(draw.randrange(8)):
            await anyio.lowlevel.checkpoint()
        health.drain()
        drained = True

    async with anyio.create_task_group() as tasks:
        for member in draw.sample([drain, *[ask] * 12], 13):
            tasks.start_soon(member)
    assert (await health.run()).reason is Reason.DRAINING
    with anyio.fail_after(AMPLE):
        await health.aclose()


@pytest.mark.parametrize("run", LOOPS)
def test_a_crowd_of_which_one_drains(run: Callable[..., None]) -> None:
    for seed in range(times(12)):
        run(lambda seed=seed: a_crowd_that_drains(seed))


async def a_crowd_of_callers(seed: int) -> None:
    """Many guarded calls that go well, fail or are given up: every permit comes back."""
    draw = random.Random(seed)
    breaker = CircuitBreaker(
        consecutive_failures=3, open_for=0.001, open_for_max=0.002, half_open_max_wait=AMPLE
    )
    health = Health(max_age=0, deadline=AMPLE)
    probe = Watched(seed, is_async=True)
    check = health.add("payments", probe, timeout=AMPLE, breaker=breaker)
    busy = most = 0

    @check.guard(fallback="later", max_concurrent=5)
    async def call(way: str, steps: int) -> str:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        try:
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
        finally:
            busy -= 1
        if way == "fails":
            raise ConnectionError("refused")
        return "now"

    async def caller() -> None:
        way, steps = draw.choice(["goes well", "goes well", "fails"]), draw.randrange(4)
        with anyio.CancelScope() as scope:
            if draw.random() < 0.3:
                scope.cancel()
            assert await call(way, steps) in {"now", "later"}

    async with anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(caller)
            if draw.random() < 0.3:
                await health.run(fresh=True)
    assert busy == 0
    assert most <= 5
    with anyio.fail_after(AMPLE):
        while not ((await health.run(fresh=True)).ok and breaker.available):  # noqa: ASYNC110 - as above
            await anyio.sleep(0.001)
    for _ in range(6):  # more than may be under way at once: none is so any more
        assert await call("goes well", 1) == "now"
    with anyio.fail_after(AMPLE):
        await health.aclose()


@pytest.mark.parametrize("run", LOOPS)
def test_a_crowd_of_guarded_calls(run: Callable[..., None]) -> None:
    for seed in range(times(12)):
        run(lambda seed=seed: a_crowd_of_callers(seed))


def test_trio_s_orders_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """trio shuffles tasks that are ready. With a seed it deals the same order again."""
    from trio._core import _run

    monkeypatch.setattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    for seed in range(times(20)):
        _run._r.seed(seed)
        for crowd in (a_crowd, a_crowd_that_drains, a_crowd_of_callers):
            on_trio(lambda seed=seed, crowd=crowd: crowd(seed))  # type: ignore[misc]  # seed is an int


@pytest.mark.parametrize("run", LOOPS)
def test_threads_and_tasks_share_the_runs(run: Callable[..., None]) -> None:
    health, probes = a_health()
    over = threading.Event()

    def hammer() -> int:
        asked = 0
        while not over.is_set():
            see(health.run_sync())
            asked += 1
        return asked

    async def main() -> None:
        async with health:
            threads = [InThread(hammer) for _ in range(3)]
            for seed in range(5):
                await a_crowd(seed)
                for _ in range(5):
                    see(await health.run(fresh=True))
            over.set()
            await until(lambda: all(thread.done for thread in threads))
            assert all(thread.result() for thread in threads)

    run(main)
    assert {probe.most for probe in probes.values()} == {1}


ENGINE = {
    f"healthmw.{room}"
    for room in ("_breaker", "_breaker_phase", "_check", "_crowd", "_flight", "_reports", "_runner")
}


def interrupted(work: Callable[[], None], step: int, interrupt: Callable[[], object]) -> bool:
    """Do `work`; at so many steps of the interpreter in the engine, have a thread do `interrupt`.

    The thread may have to wait for a lock; then work goes on. Return False if it had no so many.
    """
    left = step
    threads: list[InThread[object]] = []

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if frame.f_globals.get("__name__") not in ENGINE or threads:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if not left:
                threads.append(InThread(interrupt))
                threads[0].wait(0.01)
        return trace

    usual = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(usual)
    for thread in threads:
        thread.result()
    return bool(threads)


class Interruptible:
    """Two readers who share a run of three checks, and what may come between at any step."""

    def __init__(self) -> None:
        self.health = Health(max_age=0, deadline=AMPLE)
        self.breaker = CircuitBreaker(consecutive_failures=1, open_for=0.001, open_for_max=0.001)
        self.watched = Watched(0, is_async=True)
        self.health.add("it", self.watched, timeout=AMPLE)
        self.health.add("sync", Watched(0, is_async=False), timeout=AMPLE)
        self.health.add("guarded", ScriptedProbe(), critical=False, breaker=self.breaker)

    async def read(self) -> None:
        see(await self.health.run())

    async def main(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.read)
            tasks.start_soon(self.read)

    def change(self) -> None:
        """Who asks from now on waits with nobody of before."""
        self.health.group("ready", codes={"okay": 200})

    def grow(self) -> None:
        self.health.add("more", ScriptedProbe())

    def drain(self) -> None:
        self.health.drain()
        assert self.health.run_sync().reason is Reason.DRAINING

    def ask(self) -> None:
        see(self.health.run_sync(fresh=True))

    def trip(self) -> None:
        with contextlib.suppress(ZeroDivisionError):
            self.health.check("guarded").guard()(lambda: 1 / 0)()

    def force_open(self) -> None:
        self.breaker.force_open()

    def see_to_it(self) -> None:
        """See that all is as it should be after it."""
        self.breaker.reset()
        report = self.health.run_sync(fresh=True)
        see(report)
        assert self.watched.most <= 1
        if not self.health.draining:  # then, nothing is run any more
            assert {result.status for result in report.results.values()} == {Status.OKAY}


@pytest.mark.parametrize("run", [on_asyncio, on_trio])
@pytest.mark.parametrize("what", ["change", "grow", "drain", "ask", "trip", "force_open"])
def test_what_comes_between_at_any_step_of_two_readers(what: str, run: Callable[..., None]) -> None:
    stride = max(1, round(40 / times(1)))
    steps = itertools.count(1 + random.Random(f"{what} {run.__name__}").randrange(stride), stride)
    for step in steps:
        place = Interruptible()
        found = interrupted(lambda: run(place.main), step, getattr(place, what))  # noqa: B023 - done at once
        place.see_to_it()
        if not found:
            break
    assert step > 1000


@pytest.mark.parametrize("run", LOOPS)
def test_lives_that_begin_and_end_under_load(run: Callable[..., None]) -> None:
    """After `aclose()` no task of ours is left, whatever was under way; and it can begin again."""
    health = Health(max_age=0, deadline=AMPLE)
    quick = Watched(0, is_async=True)
    health.add("quick", quick, timeout=AMPLE)
    health.add("often", Watched(1, is_async=True), timeout=AMPLE, interval=0.001, stale_after=90)
    health.add("seldom", Watched(2, is_async=False), timeout=AMPLE, interval=0.001, stale_after=90)

    async def main() -> None:
        for _ in range(times(8)):
            async with health, anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(health.run)
                await anyio.sleep(0.002)
        if run is not on_trio:
            await until(
                lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "healthmw"]
            )

    before = len(foreign_threads())
    for _ in range(3):
        run(main)
    assert quick.most == 1
    until_sync(lambda: len(foreign_threads()) <= before + 1)  # the portal's, for `seldom`


# Forks


@pytest.mark.skipif(sys.platform != "linux", reason="where it is safe to fork with threads")
def test_forks_in_the_middle_of_it_all() -> None:
    """Whatever threads were doing at the fork, the child answers at once, and so does its child."""
    run_program(
        f"""
sys.setswitchinterval(1e-6)
from tests.abuse.test_races import a_health, see

health, probes = a_health()
health.add("often", ScriptedProbe(), timeout=30, interval=0.001, stale_after=60)
over = threading.Event()

def hammer():
    while not over.is_set():
        see(health.run_sync(fresh=True))
        health.check("cache").breaker.force_open()
        health.check("cache").breaker.reset()

def child(depth):
    signal.alarm(40)
    health.check("cache").breaker.reset()  # the fork may have come while it was forced open
    health.start()
    for probe in probes.values():
        probe._lock = threading.Lock()  # the probes' own: theirs to renew
        probe._running = 0
    until_sync(lambda: health.run_sync().ok)
    if depth:
        pid = os.fork()
        if not pid:
            child(depth - 1)
        assert os.waitpid(pid, 0)[1] == 0
    os._exit(0)

health.start()
threads = [InThread(hammer) for _ in range(4)]
until_sync(lambda: health.run_sync().ok)
try:
    for number in range({times(12)}):
        pid = os.fork()
        if not pid:
            try:
                child(number % 3 == 0)
            except BaseException:
                print(health.run_sync(), file=sys.stderr)
                raise
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0, number
finally:
    over.set()
for thread in threads:
    thread.result()
see(health.run_sync())
""",
        measured=False,
    )


# Against a reference


class HealthAgainstReference(RuleBasedStateMachine):
    """One check on request, by a clock set by hand, and what its verdict has to be."""

    @initialize(
        max_age=st.sampled_from([0.0, 1.0, 4.0]),
        failure_max_age=st.sampled_from([None, 0.0, 2.0]),
        down=st.integers(1, 3),
        up=st.integers(1, 3),
        critical=st.booleans(),
        is_async=st.booleans(),
    )
    def begin(  # noqa: PLR0917 - Hypothesis gives them by name
        self,
        max_age: float,
        failure_max_age: float | None,
        down: int,
        up: int,
        critical: bool,
        is_async: bool,
    ) -> None:
        self.clock = ManualClock()
        self.health = Health(clock=self.clock, max_age=max_age, deadline=AMPLE)
        self.probe = ScriptedProbe(is_async=is_async)
        self.health.add(
            "it",
            self.probe,
            timeout=AMPLE,
            critical=critical,
            failure_max_age=failure_max_age,
            failure_threshold=down,
            success_threshold=up,
        )
        self.critical, self.down, self.up = critical, down, up
        self.ages = {True: max_age, False: max_age if failure_max_age is None else failure_max_age}
        self.well = True  # the dependency
        self.calls = 0
        self.raw: bool | None = None  # the last run
        self.verdict: bool | None = None
        self.streak = 0
        self.ended = 0.0
        self.latched = self.draining = False

    @rule(well=st.booleans())
    def turn(self, well: bool) -> None:
        self.well = well
        self.probe.play(None if well else ConnectionError("refused"))

    @rule(eighths=st.integers(1, 40))
    def wait(self, eighths: int) -> None:
        self.clock.advance(eighths / 8)

    @rule(times=st.integers(1, 3))
    def ask(self, times: int) -> None:
        for _ in range(times):
            self.asked("ready")

    @rule(group=st.sampled_from(["it", "release", "startup"]), fresh=st.booleans())
    def ask_for(self, group: str, fresh: bool) -> None:
        self.asked(group, fresh=fresh)

    @rule()
    def ask_in_a_crowd(self) -> None:
        expected = self.expect("it", fresh=False)
        reports: list[Report] = []
        at_once(4, lambda _: reports.append(self.health.run_sync("it")))
        if self.ages[self.good]:  # else who comes late runs it once more
            assert [report.status for report in reports] == [expected] * 4
        else:
            self.resync()

    def resync(self) -> None:
        """Take over what may have been any of several."""
        extra = self.probe.calls - self.calls
        for _ in range(extra):
            self.ran()

    @precondition(lambda self: not self.draining)
    @rule()
    def drain(self) -> None:
        self.health.drain()
        self.draining = True

    def asked(self, group: str, *, fresh: bool = False) -> None:
        expected = self.expect(group, fresh=fresh)
        report = self.health.run_sync(group, fresh=fresh)
        see(report)
        assert report.status is expected

    def expect(self, group: str, *, fresh: bool) -> Status:
        if group == "startup" and self.latched:
            return self.latched_as
        age = self.clock.now - self.ended
        young = self.raw is not None and age < self.ages[self.good]
        # One that drains runs no more for `ready`.
        if not (self.draining and group == "ready") and (fresh or not young):
            self.ran()
        if group == "ready" and self.draining:
            return Status.FAILED
        status = self.shown()
        counted = min(status, Status.DEGRADED) if not self.critical and group != "it" else status
        if group == "startup" and counted <= Status.DEGRADED:
            self.latched, self.latched_as = True, counted
        return counted

    latched_as = Status.OKAY

    @property
    def good(self) -> bool:
        """Whether the last result stands as long as a good one does."""
        return bool(self.raw) and bool(self.verdict)

    def shown(self) -> Status:
        if self.verdict is None:
            return Status.UNKNOWN
        return Status.OKAY if self.verdict else Status.FAILED

    def ran(self) -> None:
        self.calls += 1
        self.raw, self.ended = self.well, self.clock.now
        if self.verdict is None or self.raw == self.verdict:
            self.verdict, self.streak = self.raw, 0
            return
        self.streak += 1
        if self.streak >= (self.up if self.raw else self.down):
            self.verdict, self.streak = self.raw, 0

    @invariant()
    def it_ran_when_it_had_to(self) -> None:
        assert self.probe.calls == self.calls
        assert self.health.check("it").status is self.shown()
        assert self.health.last("it").results["it"].status is self.shown()


TestHealthAgainstReference = HealthAgainstReference.TestCase
TestHealthAgainstReference.settings = tries(80, stateful_step_count=40)
