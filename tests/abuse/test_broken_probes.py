"""Probes that are broken in every way we could think of: each hurts its own check and nothing else.

Whatever a probe raises or returns, the answer is there, the check beside it is well, every format
can be shown, and when the probe is mended the check is well again.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthmw import CircuitBreaker, Degraded, Health, Reason, Status
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.testing import ScriptedProbe
from healthmw.wsgi import HealthMiddleware
from tests.abuse.effort import tries
from tests.transports import WsgiExchange, environ_for
from tests.waiting import InThread, defy_cancellation, until_sync

AMPLE = 60.0
"""Seconds: the limit of runs that are to come back by themselves, on any machine."""
BRIEF = 0.05
"""Seconds: the limit of runs that are meant to run into it."""

LATEST = 3

Act = Callable[[], Any]

# What may be raised


class _MuteError(Exception):
    """Its text can't be had."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("mute")
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__


class _TracelessError(Exception):
    def with_traceback(self, _traceback: object) -> Any:
        raise SystemExit("no traceback of mine")


class _NotedError(Exception):
    __notes__ = 5  # type: ignore[assignment]  # that is the point


class _LiarError(Exception):
    __class__ = property(lambda self: 1 / 0)


def _chained(length: int) -> Exception:
    error = ValueError("the first")
    for number in range(length):
        later = ValueError(f"number {number}")
        later.__cause__ = error
        error = later
    return error


def _circular() -> Exception:
    error, other = ValueError("one"), ValueError("other")
    error.__cause__, other.__cause__ = other, error
    return error


def _nested(depth: int) -> BaseException:
    error: Exception = ValueError("inside")
    for _ in range(depth):
        error = ExceptionGroup("around", [error, OSError("beside")])
    return error


ERRORS: dict[str, Callable[[], BaseException]] = {
    "an error": lambda: OSError("refused"),
    "of a probe's": lambda: ProbeFailedError("no"),
    "an end": lambda: SystemExit(3),
    "an end without a word": SystemExit,
    "a cancellation": lambda: asyncio.CancelledError("mine"),
    "a closed generator": GeneratorExit,
    "an iteration's end": lambda: StopIteration(1),
    "an async one's": StopAsyncIteration,
    "no memory": lambda: MemoryError("all gone"),
    "a group": lambda: ExceptionGroup("several", [OSError("a"), ValueError("b")]),
    "a group of ends": lambda: BaseExceptionGroup("ends", [SystemExit(1), KeyboardInterrupt()]),
    "deep groups": lambda: _nested(200),
    "a long chain": lambda: _chained(3000),
    "a circle": _circular,
    "a long text": lambda: OSError("x" * 3_000_000),
    "a surrogate": lambda: OSError("\ud800 \x00\x1b[2J"),
    "strange arguments": lambda: OSError(b"\xff", {}, object()),
    "strange notes": lambda: _NotedError("noted"),
    "no text": lambda: _MuteError(ValueError("no text")),
    "a text that ends": lambda: _MuteError(SystemExit("no text")),
    "a text that is cancelled": lambda: _MuteError(asyncio.CancelledError()),
    "no traceback": lambda: _TracelessError("it"),
    "a liar": lambda: _LiarError("it"),
}
INTERRUPT = "an interrupt"
"""Of the main thread's loop it may be the user's; so only where the loop is another thread's."""

# What may be returned


class _Evil(Mapping[str, Any]):
    """A mapping whose entries can't be had."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getitem__(self, key: str) -> Any:
        raise self._error

    def __iter__(self) -> Iterator[str]:
        raise self._error

    def __len__(self) -> int:
        raise self._error


class _EvilText(str):
    __slots__ = ()

    def __getitem__(self, _index: object) -> str:
        raise SystemExit("no part of it")

    def __format__(self, _spec: str) -> str:
        raise SystemExit("no text of it")


class _OwnNumber(int):
    def __le__(self, _other: object) -> bool:
        raise SystemExit("not comparable")

    __ge__ = __lt__ = __gt__ = __le__

    def __repr__(self) -> str:
        raise ValueError("unspeakable")

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        raise ValueError("unspeakable")


class _OwnFloat(float):
    __repr__ = __str__ = _OwnNumber.__repr__
    __format__ = _OwnNumber.__format__


class _Faceless:
    __class__ = property(lambda self: 1 / 0)


class _Unequal:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]  # that is the point

    def __bool__(self) -> bool:
        raise RuntimeError("neither")


def _generator() -> Iterator[int]:
    yield 1


async def _coroutine() -> None: ...


FINE: dict[str, Act] = {
    "nothing": lambda: None,
    "True": lambda: True,
    "a number": lambda: 0,
    "incomparable": _Unequal,
    "a mapping": lambda: {"n": 1},
    "strange names": lambda: {1: 1, None: 2, "": 3, "\ud800": 4, "a\nb{}\"'<": 5, "x" * 9999: 6},
    "strange numbers": lambda: {
        "nan": float("nan"),
        "inf": float("inf"),
        "less": -float("inf"),
        "big": 10**5000,
        "low": -(2**63),
        "yes": True,
    },
    "strange values": lambda: {
        "none": None,
        "list": [1],
        "text": "\ud800\x00" * 500,
        "o": object(),
    },
    "numbers of its own": lambda: {"n": _OwnNumber(3), "x": _OwnFloat(0.5)},
    "very many": lambda: {f"n{number}": number for number in range(5000)},
    "a counter": lambda: collections.Counter("aab"),
    "the class": lambda: Degraded,
    "degraded": lambda: Degraded("slow", {"n": 1}),
    "degraded for no text": lambda: Degraded(17),  # type: ignore[arg-type]  # that is the point
    "degraded at length": lambda: Degraded("\ud800" * 100_000),
}
BROKEN: dict[str, Act] = {
    "False": lambda: False,
    "a generator": _generator,
    "a class's generator": lambda: (number for number in range(3)),
    "faceless": _Faceless,
    "degraded, without a mapping": lambda: Degraded("x", 5),  # type: ignore[arg-type]  # likewise
    "degraded, evil text": lambda: Degraded(_MuteError(SystemExit())),  # type: ignore[arg-type]  # likewise
    "degraded, evil mapping": lambda: Degraded("x", _Evil(SystemExit())),
    "an evil mapping": lambda: _Evil(ValueError("no")),
    "an ending mapping": lambda: _Evil(SystemExit("no")),
    "a cancelled mapping": lambda: _Evil(asyncio.CancelledError()),
    "evil text": lambda: {_EvilText("a"): 1},
}


def _raising(make: Callable[[], BaseException]) -> Act:
    def act() -> None:
        raise make()

    return act


def _recursing() -> None:
    _recursing()


ACTS: dict[str, tuple[Act, bool]] = {
    **{f"returns {name}": (act, True) for name, act in FINE.items()},
    **{f"returns {name}": (act, False) for name, act in BROKEN.items()},
    **{f"raises {name}": (_raising(make), False) for name, make in ERRORS.items()},
    "recurses": (_recursing, False),
}


class Broken:
    """A probe that does what it is told."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self.act: Act = lambda: None

    def __call__(self) -> Any:
        return self._later() if self.is_async else self.act()

    async def _later(self) -> Any:
        return self.act()


def a_health(probe: Any, **policy: Any) -> Health:
    health = Health(max_age=0, deadline=2 * AMPLE)
    health.add("broken", probe, **({"timeout": AMPLE} | policy))
    health.add("other", ScriptedProbe({"n": 1}), timeout=AMPLE)
    return health


@pytest.fixture(autouse=True)
def breakdowns(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Hold names in place of the exceptions: some here break whoever looks at them."""
    told: list[str] = []
    monkeypatch.setattr(
        sys, "excepthook", lambda kind, _exc, _traceback: told.append(kind.__name__)
    )
    yield told
    assert told == []


def _no_app(*_: object) -> Any:
    pytest.fail("this was for the endpoint")


def look(health: Health) -> None:
    """See that every format of the answer can be made."""
    app = HealthMiddleware(_no_app, health, show="full")
    for query in (
        "verbose",
        "format=json",
        "format=html",
        "format=openmetrics",
        "format=prometheus",
    ):
        answer = WsgiExchange().serve(app, environ_for(path="/health_check", query=query))
        assert answer.status in {200, 503}


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("name", ACTS)
def test_whatever_it_does_hurts_its_own_check_alone(name: str, is_async: bool) -> None:
    act, fine = ACTS[name]
    probe = Broken(is_async=is_async)
    probe.act = act
    health = a_health(probe)
    for _ in range(2):
        report = InThread(health.run_sync).result()
        result = report.results["broken"]
        assert result.ok is fine, result.detail
        assert result.reason in {Reason.OKAY, Reason.DEGRADED, Reason.FAILED}
        assert report.results["other"].status is Status.OKAY
        InThread(lambda: look(health)).result()
    probe.act = lambda: None
    assert InThread(health.run_sync).result().status is Status.OKAY


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@tries(60)
@given(
    names=st.lists(st.sampled_from(sorted(ACTS)), min_size=1, max_size=6), trip=st.integers(1, 3)
)
def test_one_after_another_with_a_breaker(names: list[str], trip: int, is_async: bool) -> None:
    """The breaker hears of each failure and of nothing else, and closes when all is well again."""
    probe = Broken(is_async=is_async)
    breaker = CircuitBreaker(consecutive_failures=trip, open_for=1e-9, open_for_max=1e-9)
    health = a_health(probe, breaker=breaker)
    for name in names:
        probe.act, fine = ACTS[name]

        def is_told(fine: bool = fine) -> bool:
            report = health.run_sync(fresh=True)
            assert report.results["other"].status is Status.OKAY
            return report.results["broken"].ok is fine

        # The `Health` makes trials by itself, and who asks may share one that began before.
        until_sync(is_told)
    probe.act = lambda: None
    until_sync(lambda: health.run_sync(fresh=True).ok)
    assert breaker.available
    anyio.run(health.aclose)


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_an_interrupt_of_its_own_is_its_failure(is_async: bool) -> None:
    probe = Broken(is_async=is_async)
    probe.act = _raising(KeyboardInterrupt)
    health = a_health(probe)
    report = InThread(health.run_sync).result()
    assert report.results["broken"].reason is Reason.FAILED
    assert report.results["other"].ok


def test_its_own_time_out_is_one() -> None:
    probe = Broken(is_async=True)
    probe.act = _raising(lambda: ProbeTimeoutError("not back within 1 s"))
    assert a_health(probe).run_sync().results["broken"].reason is Reason.TIMEOUT


class Secretive(Broken):
    """A probe whose attributes can't be read, or not be told from what they are not."""

    class Anything:
        def __eq__(self, _: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 0

    class Unequal(Anything):
        def __eq__(self, _: object) -> bool:
            raise RuntimeError("not to be compared")

        __hash__ = None  # type: ignore[assignment]

    read: Act = staticmethod(lambda: None)

    @property
    def component_type(self) -> Any:
        return self.read()

    @property
    def needs(self) -> Any:
        return self.read()


@pytest.mark.parametrize(
    "read",
    [_raising(RuntimeError), Secretive.Anything, Secretive.Unequal, lambda: [Secretive.Unequal()]],
)
def test_an_attribute_that_can_not_be_read_is_left_out(read: Act) -> None:
    probe = Secretive(is_async=False)
    probe.read = read
    health = a_health(probe)
    assert health.run_sync().ok
    InThread(lambda: look(health)).result()


@pytest.mark.anyio
async def test_one_whose_close_can_not_be_read_is_told_and_keeps_no_other_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Unreadable(Broken):
        @property
        def aclose(self) -> Any:
            raise RuntimeError("not to be had")

    class Open(Broken):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    health = Health()
    health.add("broken", Unreadable(is_async=False))
    other = Open(is_async=False)
    health.add("other", other)
    await health.aclose()
    assert other.closed
    assert "check broken: closing its probe: RuntimeError: not to be had" in caplog.text


# Such as never come back, and such as leave something behind


@pytest.mark.anyio
@pytest.mark.parametrize("breaks", [False, True], ids=["alone", "with a breaker"])
async def test_one_that_swallows_every_cancellation_costs_one_task(breaks: bool) -> None:
    released: list[anyio.Event] = []

    async def stubborn() -> None:
        released.append(anyio.Event())
        await defy_cancellation(released[-1])

    breaker = CircuitBreaker(consecutive_failures=1, open_for=1e-9, open_for_max=1e-9)
    health = a_health(stubborn, timeout=BRIEF, breaker=breaker if breaks else None)
    for _ in range(30):
        report = await health.run()
        assert not report.results["broken"].ok
        assert report.results["other"].ok
    assert len(released) == 1
    released[0].set()
    await health.aclose()


@pytest.mark.anyio
async def test_tasks_that_it_leaves_behind_are_its_own_affair() -> None:
    left: list[anyio.Event] = []

    async def spawns() -> None:
        async def straggler() -> None:
            left.append(anyio.Event())
            await left[-1].wait()

        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(straggler)
                await anyio.lowlevel.checkpoint()
                scope.cancel()

    health = a_health(spawns)
    for _ in range(3):
        assert (await health.run()).ok
    assert len(left) >= 20


def test_threads_that_it_starts_do_not_matter() -> None:
    released = threading.Event()
    started: list[threading.Thread] = []

    def starts() -> None:
        started.append(threading.Thread(target=released.wait, daemon=True))
        started[-1].start()

    health = a_health(starts)
    for _ in range(3):
        assert health.run_sync().ok
    released.set()
    for thread in started:
        thread.join(AMPLE)


@pytest.mark.anyio
async def test_one_that_cancels_its_own_task_fails() -> None:
    async def suicidal() -> None:
        with contextlib.suppress(RuntimeError):  # on trio there is no such task
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(AMPLE)
        raise OSError("gone")

    health = a_health(suicidal)
    for _ in range(3):
        report = await health.run()
        assert not report.results["broken"].ok
        assert report.results["other"].ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_one_that_forks_and_whose_child_ends() -> None:
    def forks() -> dict[str, int]:
        pid = os.fork()
        if not pid:
            os._exit(7)
        return {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}

    health = a_health(forks)
    for _ in range(5):
        report = health.run_sync()
        assert report.results["broken"].measurements == {"code": 7}
        assert report.results["other"].ok


def test_a_judge_that_ends_the_world_hurts_its_check_alone() -> None:
    def judge(_: object) -> bool:
        raise SystemExit("no judgement")

    for is_async in (True, False):
        breaker = CircuitBreaker(is_failure=judge)
        health = a_health(ScriptedProbe(OSError("gone"), is_async=is_async), breaker=breaker)
        for _ in range(3):
            report = InThread(health.run_sync).result()
            assert report.results["broken"].reason is Reason.FAILED
            assert report.results["other"].ok


@pytest.mark.anyio
async def test_all_of_them_at_once() -> None:
    health = Health(max_age=0, deadline=2 * AMPLE)
    expected = {}
    for number, (act, fine) in enumerate(ACTS.values()):
        for is_async in (True, False):
            probe = Broken(is_async=is_async)
            probe.act = act
            name = f"n{number}-{'async' if is_async else 'sync'}"
            health.add(name, probe, timeout=AMPLE)
            expected[name] = fine
    for _ in range(2):
        report = await health.run()
        assert {name: result.ok for name, result in report.results.items()} == expected
