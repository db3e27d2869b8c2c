from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import logging
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from healthmw import CircuitBreaker, DependencyUnavailable, Health
from healthmw._guard import Guard
from healthmw._options import MISSING
from healthmw.testing import ManualClock
from tests.breaker_kit import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    PATIENCE,
    Clock,
    acquire,
    fail,
    in_threads,
    make_breaker,
)
from tests.broken_log import broken_log

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Generator,
        Iterator,
    )


class CallError(Exception):
    """What a guarded call raises."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return make_breaker(clock)


def guard(breaker: CircuitBreaker | None = None, **options: Any) -> Guard[Any]:
    return Guard(name="payments", breaker=breaker, **options)


def refusing() -> CircuitBreaker:
    breaker = CircuitBreaker()
    breaker.force_open()
    return breaker


def counts(breaker: CircuitBreaker) -> tuple[int, int]:
    """Successes and failures recorded so far."""
    snapshot = breaker.snapshot()
    return snapshot.total_successes, snapshot.total_failures


async def collect(into: list[Any], items: AsyncIterator[Any]) -> None:
    async for item in items:
        into.append(item)  # noqa: PERF401 - a comprehension would lose what came before an error


# Functions


def test_a_guarded_function_returns_what_it_returns_and_is_counted(
    breaker: CircuitBreaker,
) -> None:
    @guard(breaker)
    def double(number: int, *, plus: int = 0) -> int:
        return 2 * number + plus

    assert double(3, plus=1) == 7
    assert counts(breaker) == (1, 0)


@pytest.mark.anyio
async def test_a_guarded_coroutine_function_too(breaker: CircuitBreaker) -> None:
    @guard(breaker)
    async def double(number: int, *, plus: int = 0) -> int:
        await anyio.lowlevel.checkpoint()
        return 2 * number + plus

    assert await double(3, plus=1) == 7
    assert counts(breaker) == (1, 0)


def test_failures_open_it_and_then_calls_are_refused(breaker: CircuitBreaker, clock: Clock) -> None:
    calls: list[int] = []

    @guard(breaker)
    def call() -> None:
        calls.append(1)
        raise CallError

    for _ in range(3):
        with pytest.raises(CallError):
            call()
    clock.forward(4)
    with pytest.raises(DependencyUnavailable) as caught:
        call()
    assert len(calls) == 3
    assert (caught.value.name, caught.value.retry_after) == ("payments", 6.0)
    assert str(caught.value) == "payments is unavailable; try again in 6.0 s"


@pytest.mark.anyio
async def test_failures_of_a_coroutine_function_open_it_too(breaker: CircuitBreaker) -> None:
    calls: list[int] = []

    @guard(breaker)
    async def call() -> None:
        calls.append(1)
        raise CallError

    for _ in range(3):
        with pytest.raises(CallError):
            await call()
    with pytest.raises(DependencyUnavailable):
        await call()
    assert len(calls) == 3


def test_a_success_after_failures_ends_the_row(breaker: CircuitBreaker) -> None:
    @guard(breaker)
    def call(error: Exception | None) -> None:
        if error is not None:
            raise error

    for error in (CallError(), CallError(), None, CallError(), CallError(), None):
        with contextlib.suppress(CallError):
            call(error)
    assert breaker.state is CLOSED
    assert breaker.snapshot().consecutive_failures == 0
    assert counts(breaker) == (2, 4)


@pytest.mark.anyio
async def test_a_success_of_a_coroutine_function_ends_the_row_too(
    breaker: CircuitBreaker,
) -> None:
    fail(breaker, 2)

    @guard(breaker)
    async def call() -> None:
        """Go well."""

    await call()
    assert breaker.snapshot().consecutive_failures == 0


def test_a_failure_while_a_call_is_under_way_is_ended_by_its_success(
    breaker: CircuitBreaker,
) -> None:
    @guard(breaker)
    def call() -> None:
        fail(breaker, 2)

    call()
    assert breaker.snapshot().consecutive_failures == 0
    assert counts(breaker) == (1, 2)


def test_a_call_that_outlives_its_stretch_changes_nothing(breaker: CircuitBreaker) -> None:
    @guard(breaker)
    def call(error: Exception | None = None) -> None:
        fail(breaker, 3)
        if error is not None:
            raise error

    call()
    assert breaker.state is OPEN
    breaker.reset()
    with pytest.raises(CallError):
        call(CallError())
    assert breaker.snapshot().consecutive_failures == 3


def test_the_calls_own_exception_is_raised_unchanged(breaker: CircuitBreaker) -> None:
    error = CallError("the original")

    @guard(breaker)
    def call() -> None:
        raise error

    with pytest.raises(CallError) as caught:
        call()
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames[-2:] == ["guarded", "call"]


def test_a_thousand_refusals_raise_a_thousand_exceptions_of_the_same_depth() -> None:
    @guard(refusing())
    def call() -> None:
        raise AssertionError("was called")

    errors = []
    for _ in range(1000):
        with pytest.raises(DependencyUnavailable) as caught:
            call()
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 1000
    assert len({len(traceback.extract_tb(error.__traceback__)) for error in errors}) == 1


def test_a_refusal_leaves_no_cycle_for_the_collector() -> None:
    @guard(refusing())
    def call() -> None:
        raise AssertionError("was called")

    def alive() -> int:
        return sum(type(found) is DependencyUnavailable for found in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(10):
            with contextlib.suppress(DependencyUnavailable):
                call()
        assert alive() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_interrupted_call_is_not_recorded_and_has_no_fallback(
    breaker: CircuitBreaker, interruption: type[BaseException]
) -> None:
    @guard(breaker, fallback="fallback")
    def call() -> str:
        raise interruption

    with pytest.raises(interruption):
        call()
    assert counts(breaker) == (0, 0)


@pytest.mark.anyio
async def test_a_cancelled_call_is_not_recorded_and_has_no_fallback(
    breaker: CircuitBreaker,
) -> None:
    answers: list[str] = []

    @guard(breaker, fallback="fallback")
    async def call() -> str:
        await anyio.sleep(PATIENCE)
        return "call"

    with anyio.CancelScope() as scope:
        scope.cancel()
        answers.append(await call())
    assert scope.cancelled_caught
    assert answers == []
    assert counts(breaker) == (0, 0)


def test_without_a_breaker_all_pass() -> None:
    @guard(None)
    def call() -> None:
        raise CallError

    for _ in range(20):
        with pytest.raises(CallError):
            call()


def test_through_a_disabled_breaker_all_pass_and_nothing_is_counted(
    breaker: CircuitBreaker,
) -> None:
    @guard(breaker)
    def call(error: Exception | None = None) -> None:
        if error is not None:
            raise error

    breaker.disable()
    for _ in range(10):
        call()
        with pytest.raises(CallError):
            call(CallError())
    assert counts(breaker) == (0, 0)


def test_metrics_only_counts_guarded_calls(breaker: CircuitBreaker) -> None:
    breaker.metrics_only()
    guarded = guard(breaker)(int)
    for text in ("1", "x", "2", "y", "z"):
        with contextlib.suppress(ValueError):
            guarded(text)
    assert counts(breaker) == (2, 3)


def test_a_window_hears_guarded_calls(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=4, slow_call_duration=2.0, slow_call_rate=0.5)

    @guard(breaker)
    def call(seconds: float) -> None:
        clock.forward(seconds)

    for seconds in (0, 0, 3):
        call(seconds)
    assert breaker.snapshot().slow == 1
    assert breaker.state is CLOSED
    call(2)
    assert breaker.state is OPEN


def test_a_hundred_threads_in_half_open_make_so_many_trials(clock: Clock) -> None:
    breaker = make_breaker(clock, half_open_calls=5)
    fail(breaker, 3)
    clock.forward(10)
    inside, refused, done = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
    answers: list[str] = []

    def refuse() -> str:
        refused.release()
        return "refused"

    @guard(breaker, trial=True, fallback=refuse)
    def call() -> str:
        inside.release()
        done.wait(PATIENCE)
        return "trial"

    def work(index: int) -> None:
        if index > 0:
            answers.append(call())
            return
        for _ in range(5):
            assert inside.acquire(timeout=PATIENCE)
        for _ in range(94):
            assert refused.acquire(timeout=PATIENCE)
        done.set()

    in_threads(100, work)
    assert (answers.count("trial"), answers.count("refused")) == (5, 94)
    assert breaker.state is CLOSED


@pytest.mark.anyio
async def test_a_hundred_tasks_in_half_open_make_so_many_trials(clock: Clock) -> None:
    breaker = make_breaker(clock, half_open_calls=5)
    fail(breaker, 3)
    clock.forward(10)
    done = anyio.Event()
    answers: list[str] = []

    @guard(breaker, trial=True, fallback="refused")
    async def call() -> str:
        await done.wait()
        return "trial"

    async def work() -> None:
        answers.append(await call())

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(work)
            await anyio.wait_all_tasks_blocked()
            assert answers == ["refused"] * 95
            done.set()
    assert answers.count("trial") == 5
    assert breaker.state is CLOSED


def test_a_guard_makes_no_trial_unless_told_to(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.forward(1000)
    with pytest.raises(DependencyUnavailable) as caught:
        guard(breaker)(dict)()
    assert caught.value.retry_after == 0.0
    assert guard(breaker, trial=True)(dict)() == {}
    assert breaker.state is CLOSED


def test_ten_threads_are_inside_a_closed_breaker_at_once(breaker: CircuitBreaker) -> None:
    all_inside = threading.Barrier(10)

    @guard(breaker)
    def call() -> None:
        all_inside.wait(PATIENCE)

    in_threads(10, lambda _: call())
    assert counts(breaker) == (10, 0)


# Fallbacks


def test_a_fallback_answers_a_refusal_and_a_failure(breaker: CircuitBreaker) -> None:
    @guard(breaker, fallback=lambda order, *, by: f"{order} later, {by}")
    def charge(order: str, *, by: str) -> str:
        raise CallError

    answers = [charge("tea", by="card") for _ in range(5)]
    assert answers == ["tea later, card"] * 5
    assert breaker.state is OPEN
    assert counts(breaker) == (0, 3)


@pytest.mark.anyio
async def test_a_fallback_of_a_coroutine_function_is_async_or_not(breaker: CircuitBreaker) -> None:
    async def later(order: str) -> str:
        await anyio.lowlevel.checkpoint()
        return f"{order} later"

    for fallback in (later, "{} later".format, "tea later", functools.partial(later)):
        breaker.reset()

        @guard(breaker, fallback=fallback)
        async def charge(order: str) -> str:
            raise CallError

        assert [await charge("tea") for _ in range(5)] == ["tea later"] * 5
        assert breaker.state is OPEN


def test_none_is_a_fallback(breaker: CircuitBreaker) -> None:
    @guard(breaker, fallback=None)
    def call() -> str:
        raise CallError

    assert call() is None


@pytest.mark.anyio
async def test_a_fallback_for_refusals_only(breaker: CircuitBreaker) -> None:
    @guard(breaker, fallback="fallback", fallback_on="refused")
    def call() -> str:
        raise CallError

    @guard(breaker, fallback="fallback", fallback_on="refused")
    async def async_call() -> str:
        raise CallError

    for _ in range(2):
        with pytest.raises(CallError):
            call()
    with pytest.raises(CallError):
        await async_call()
    assert call() == "fallback"
    assert await async_call() == "fallback"


def test_what_the_breaker_does_not_count_has_no_fallback(clock: Clock) -> None:
    breaker = make_breaker(clock, ignore=KeyError)

    @guard(breaker, fallback="fallback")
    def call(key: str) -> str:
        raise KeyError(key)

    with pytest.raises(KeyError):
        call("no such order")
    assert counts(breaker) == (0, 0)


@pytest.mark.anyio
async def test_a_result_that_is_a_failure_is_answered_by_the_fallback(clock: Clock) -> None:
    breaker = make_breaker(clock, is_failure_result=lambda code: code >= 500)

    def ask(code: int) -> int:
        return code

    async def async_ask(code: int) -> int:
        return code

    with_fallback, without = guard(breaker, fallback=-1), guard(breaker)
    assert [with_fallback(ask)(200), with_fallback(ask)(500), without(ask)(500)] == [200, -1, 500]
    breaker.reset()
    assert await with_fallback(async_ask)(200) == 200
    assert await with_fallback(async_ask)(500) == -1
    assert await without(async_ask)(500) == 500
    assert counts(breaker) == (2, 4)


def test_a_fallback_that_fails_raises_its_own_error_in_the_context_of_the_first(
    breaker: CircuitBreaker,
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    @guard(breaker, fallback=broken)
    def call() -> None:
        raise CallError

    with pytest.raises(ZeroDivisionError) as caught:
        call()
    assert isinstance(caught.value.__context__, CallError)
    assert counts(breaker) == (0, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["function", "coroutine function", "generator", "async generator"])
async def test_what_a_fallback_hides_is_logged_aloud_where_it_opened_the_circuit(
    clock: Clock, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "healthmw")
    payments: Any = guard(make_breaker(clock, consecutive_failures=2), fallback=())

    def call() -> Any:
        raise CallError("can't reach https://shop:hunter2@payments.internal")

    async def async_call() -> Any:
        return call()

    def items() -> Iterator[Any]:
        yield call()

    async def async_items() -> AsyncIterator[Any]:
        yield call()

    for _ in range(3):  # the last one is refused
        if kind == "function":
            assert payments(call)() == ()
        elif kind == "coroutine function":
            assert await payments(async_call)() == ()
        elif kind == "generator":
            assert [*payments(items)()] == []
        else:
            assert [item async for item in payments(async_items)()] == []
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING"]
    for record in caplog.records:
        message = record.getMessage()
        assert message.startswith(
            "check payments: a guarded call failed, and its fallback answers\n"
        )
        assert message.endswith("CallError: can't reach https://shop:***@payments.internal")


@pytest.mark.anyio
async def test_calls_that_were_under_way_as_the_circuit_opened_are_not_logged_aloud(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "healthmw")
    gone = anyio.Event()
    breaker = make_breaker(clock, consecutive_failures=2, open_for=60)

    @guard(breaker, fallback=None)
    async def call() -> None:
        await gone.wait()
        raise CallError

    for _ in range(2):  # it opens, and opens again
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            gone.set()
        assert breaker.state is OPEN
        breaker.reset()
        gone = anyio.Event()
    levels = [record.levelname for record in caplog.records if "fallback" in record.message]
    assert levels == 2 * ["DEBUG", "WARNING", *48 * ["DEBUG"]]


def test_a_broken_log_takes_no_answer_of_a_fallbacks_away(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, exc, _traceback: told.append(exc))

    @guard(breaker, fallback="fallback")
    def call() -> str:
        raise CallError

    with broken_log():
        assert {call() for _ in range(10)} == {"fallback"}
    assert {type(exc) for exc in told} == {ZeroDivisionError}


def test_a_fallback_without_a_breaker_answers_failures() -> None:
    @guard(None, fallback="fallback")
    def call() -> str:
        raise CallError

    assert call() == "fallback"


# What may be guarded


def test_signature_name_and_docstring_are_kept() -> None:
    def charge(order: int, /, *, by: str = "card") -> str:
        """Charge an order."""
        return f"{order}{by}"

    guarded = guard()(charge)
    assert inspect.signature(guarded) == inspect.signature(charge)
    assert (guarded.__name__, guarded.__doc__) == ("charge", "Charge an order.")
    assert inspect.unwrap(guarded) is charge


def test_each_kind_of_function_stays_what_it_is() -> None:
    def function() -> None: ...
    async def coroutine_function() -> None: ...
    def generator_function() -> Iterator[None]:
        yield

    async def async_generator_function() -> AsyncIterator[None]:
        yield

    assert not inspect.iscoroutinefunction(guard()(function))
    assert inspect.iscoroutinefunction(guard()(coroutine_function))
    assert inspect.isgeneratorfunction(guard()(generator_function))
    assert inspect.isasyncgenfunction(guard()(async_generator_function))


@pytest.mark.anyio
async def test_methods_partials_and_callable_objects(breaker: CircuitBreaker) -> None:
    class Client:
        def __init__(self, name: str) -> None:
            self.name = name

        @guard(breaker)
        def get(self, path: str) -> str:
            return f"{self.name}{path}"

        @staticmethod
        @guard(breaker)
        def ping() -> str:
            return "pong"

        @classmethod
        @guard(breaker)
        async def make(cls, name: str) -> Client:
            return cls(name)

        async def __call__(self, path: str) -> str:
            return self.get(path)

    client = Client("a")
    assert client.get("/b") == "a/b"
    assert Client.ping() == "pong"
    assert (await Client.make("c")).name == "c"
    assert await guard(breaker)(client)("/d") == "a/d"
    assert guard(breaker)(functools.partial(client.get, "/e"))() == "a/e"
    assert await guard(breaker)(functools.partial(client, "/f"))() == "a/f"
    assert counts(breaker)[1] == 0


def test_what_cannot_be_guarded_is_refused_at_once() -> None:
    methods: list[Any] = [classmethod(lambda cls: None), staticmethod(lambda: None)]
    for method in methods:
        with pytest.raises(TypeError, match="put @guard below @"):
            guard()(method)
    name: Any = "charge"
    with pytest.raises(TypeError, match="not a str"):
        guard()(name)


async def charge() -> None: ...


def rows() -> Generator[int]:
    yield 1


async def async_rows() -> AsyncGenerator[int]:
    yield 1


async def started() -> asyncio.Task[None]:
    return asyncio.create_task(charge())


async def promised() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


UNENDED: dict[str, tuple[Callable[[], Any], str]] = {
    "coroutine": (charge, "guard an `async def` that awaits it"),
    "generator": (rows, "guard the generator function itself"),
    "async generator": (async_rows, "guard the generator function itself"),
    "context manager": (contextlib.contextmanager(rows), "put @guard below @contextmanager"),
    "async context manager": (
        contextlib.asynccontextmanager(async_rows),
        "put @guard below @asynccontextmanager",
    ),
    "future": (Future[None], "guard what waits for its result"),
    "task": (lambda: asyncio.run(started()), "guard an `async def` that awaits it"),
    "promise": (lambda: asyncio.run(promised()), "guard an `async def` that awaits it"),
}


@pytest.mark.parametrize("limited", [None, 1], ids=["closed", "limited"])
@pytest.mark.parametrize(("returned", "advice"), UNENDED.values(), ids=UNENDED)
def test_what_has_not_ended_when_it_is_returned_is_not_taken_for_a_success(
    breaker: CircuitBreaker, returned: Callable[[], Any], advice: str, limited: int | None
) -> None:
    def looks_sync() -> Any:
        return returned()

    guarded: Callable[[], Any] = guard(breaker, max_concurrent=limited)(looks_sync)
    for _ in range(2):
        with pytest.raises(TypeError, match=advice):
            guarded()
    assert counts(breaker) == (0, 0)


def test_a_generator_behind_another_decorator_is_no_evidence_that_all_is_well(
    breaker: CircuitBreaker,
) -> None:
    def traced(function: Callable[[], Any]) -> Callable[[], Any]:
        @functools.wraps(function)
        def wrapper() -> Any:
            return function()

        return wrapper

    def items() -> Iterator[int]:
        raise CallError
        yield 1

    outside: Callable[[], Iterator[int]] = guard(breaker)(traced(items))
    with pytest.raises(TypeError, match="returned a generator"):
        outside()
    inside = traced(guard(breaker)(items))
    with pytest.raises(CallError):
        list(inside())
    assert counts(breaker) == (0, 1)


def test_a_result_may_be_iterable_awaitable_and_a_context_manager(breaker: CircuitBreaker) -> None:
    class Response(contextlib.nullcontext[None]):
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"well"])

        def __await__(self) -> Generator[Any, Any, Response]:
            return self
            yield

    response = Response()
    for result in (response, iter([1]), map(str, [1]), contextlib.nullcontext()):
        call: Callable[[], object] = guard(breaker)(functools.partial(next, iter([result])))
        assert call() is result
    assert counts(breaker) == (4, 0)


# Timeouts


@pytest.mark.anyio
@pytest.mark.parametrize("ignore", [(), Exception], ids=["counted", "ignored"])
async def test_a_timeout_is_a_failure_whatever_is_ignored(clock: Clock, ignore: Any) -> None:
    breaker = make_breaker(clock, ignore=ignore)

    @guard(breaker, timeout=0.01)
    async def call() -> None:
        await anyio.sleep(PATIENCE)

    for _ in range(3):
        with pytest.raises(TimeoutError, match=r"payments did not answer within 0\.01 s"):
            await call()
    assert breaker.state is OPEN


@pytest.mark.anyio
async def test_a_timeout_has_its_fallback(breaker: CircuitBreaker) -> None:
    @guard(breaker, timeout=0.01, fallback="fallback")
    async def call() -> str:
        await anyio.sleep(PATIENCE)
        return "call"

    assert await call() == "fallback"
    assert counts(breaker) == (0, 1)


@pytest.mark.anyio
async def test_within_its_timeout_a_call_is_left_alone(breaker: CircuitBreaker) -> None:
    @guard(breaker, timeout=PATIENCE)
    async def call(error: Exception | None = None) -> str:
        await anyio.lowlevel.checkpoint()
        if error is not None:
            raise error
        return "call"

    assert await call() == "call"
    own = TimeoutError("the call's own")
    with pytest.raises(TimeoutError) as caught:
        await call(own)
    assert caught.value is own
    assert counts(breaker) == (1, 1)


@pytest.mark.anyio
async def test_a_cancelled_call_with_a_timeout_is_not_recorded(breaker: CircuitBreaker) -> None:
    @guard(breaker, timeout=PATIENCE, fallback="fallback")
    async def call() -> str:
        await anyio.sleep(PATIENCE)
        return "call"

    with anyio.move_on_after(0.01) as scope:
        await call()
    assert scope.cancelled_caught
    assert counts(breaker) == (0, 0)


@pytest.mark.anyio
async def test_a_block_has_a_timeout_too(breaker: CircuitBreaker) -> None:
    payments = guard(breaker, timeout=0.01)
    with pytest.raises(TimeoutError, match="payments did not answer") as caught:
        async with payments:
            await anyio.sleep(PATIENCE)
    assert caught.value.__suppress_context__
    assert counts(breaker) == (0, 1)
    async with guard(breaker, timeout=PATIENCE):
        await anyio.lowlevel.checkpoint()
    with pytest.raises(CallError):
        async with guard(breaker, timeout=PATIENCE):
            raise CallError
    assert counts(breaker) == (1, 2)


each_kind = pytest.mark.parametrize("kind", ["function", "generator", "block"])


async def hang(how: str) -> str:
    """Wait for ever, and make something else of the cancellation."""
    try:
        await anyio.sleep(PATIENCE)
    except anyio.get_cancelled_exc_class():
        if how == "converts":
            raise CallError("interrupted") from None
        if how == "exits":
            raise SystemExit("interrupted") from None
    return "late"


async def limited(kind: str, payments: Guard[Any], call: Callable[[], Awaitable[Any]]) -> Any:
    """Make `call` in one of the ways in which a guard can limit its time."""

    async def function() -> Any:
        return await call()

    async def generator() -> AsyncIterator[Any]:
        yield await call()

    if kind == "function":
        return await payments(function)()
    if kind == "generator":
        return [item async for item in payments(generator)()].pop()
    async with payments:
        return await call()


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["converts", "swallows"])
@each_kind
async def test_a_timeout_is_a_failure_whatever_the_call_makes_of_its_cancellation(
    clock: Clock, kind: str, how: str
) -> None:
    breaker = make_breaker(clock, ignore=CallError)
    payments = guard(breaker, timeout=0.01)
    for _ in range(3):
        with pytest.raises(TimeoutError, match="payments did not answer") as caught:
            await limited(kind, payments, functools.partial(hang, how))
        assert isinstance(caught.value.__cause__, CallError) == (how == "converts")
    assert breaker.state is OPEN


@pytest.mark.anyio
async def test_a_late_result_is_answered_by_the_fallback(breaker: CircuitBreaker) -> None:
    assert await guard(breaker, timeout=0.01, fallback="fallback")(hang)("swallows") == "fallback"
    assert counts(breaker) == (0, 1)


@pytest.mark.anyio
@each_kind
async def test_a_timeout_takes_the_place_of_no_interruption(
    breaker: CircuitBreaker, kind: str
) -> None:
    with pytest.raises(SystemExit):
        await limited(kind, guard(breaker, timeout=0.01), functools.partial(hang, "exits"))
    assert counts(breaker) == (0, 0)


@pytest.mark.anyio
@each_kind
async def test_a_timeout_takes_the_place_of_no_cancellation_from_outside(
    breaker: CircuitBreaker, kind: str
) -> None:
    async def both() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)  # past its limit
        scope.cancel()
        await anyio.lowlevel.checkpoint()

    with anyio.CancelScope() as scope:
        await limited(kind, guard(breaker, timeout=0.01), both)
    assert scope.cancelled_caught
    assert counts(breaker) == (0, 0)


@pytest.mark.anyio
@each_kind
async def test_a_timeout_is_a_failure_of_all_the_tasks_of_a_call(clock: Clock, kind: str) -> None:
    breaker = make_breaker(clock, consecutive_failures=1, ignore=ExceptionGroup)

    async def crowd() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(hang, "converts")
            group.start_soon(anyio.sleep, PATIENCE)

    with pytest.raises(TimeoutError, match="payments did not answer"):
        await limited(kind, guard(breaker, timeout=0.01), crowd)
    assert breaker.state is OPEN


@pytest.mark.anyio
@each_kind
async def test_what_ends_by_itself_before_its_timeout_is_noticed_is_left_alone(
    breaker: CircuitBreaker, kind: str
) -> None:
    async def compute() -> str:
        time.sleep(0.05)  # noqa: ASYNC251 - nobody can notice meanwhile
        return "computed"

    assert await limited(kind, guard(breaker, timeout=0.01), compute) == "computed"
    assert counts(breaker) == (1, 0)


def test_sync_code_cannot_have_a_timeout() -> None:
    def call() -> None: ...
    def items() -> Iterator[int]:
        yield 1

    for function in (call, items):
        with pytest.raises(TypeError, match="timeout= needs an async function"):
            guard(timeout=1)(function)
    with pytest.raises(TypeError, match="timeout= needs `async with`"), guard(timeout=1):
        pass


# Generators


def test_a_generator_is_one_call_that_ends_with_it(breaker: CircuitBreaker) -> None:
    @guard(breaker)
    def items(count: int) -> Generator[int, None, str]:
        yield from range(count)
        return "the end"

    generator = items(2)
    assert next(generator) == 0
    assert counts(breaker) == (0, 0)
    assert next(generator) == 1
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "the end"
    assert counts(breaker) == (1, 0)


@pytest.mark.anyio
async def test_an_async_generator_is_one_call_that_ends_with_it(breaker: CircuitBreaker) -> None:
    @guard(breaker)
    async def items(count: int) -> AsyncGenerator[int]:
        for number in range(count):
            await anyio.lowlevel.checkpoint()
            yield number

    generator = items(2)
    assert await anext(generator) == 0
    assert counts(breaker) == (0, 0)
    assert [item async for item in generator] == [1]
    assert counts(breaker) == (1, 0)


def test_a_generator_that_is_a_trial_holds_its_permit_until_it_is_exhausted(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    @guard(breaker, trial=True)
    def items() -> Iterator[int]:
        yield 1

    fail(breaker, 3)
    clock.forward(10)
    generator = items()
    assert breaker.state is OPEN  # it begins with the first item that is asked for
    next(generator)
    assert breaker.state is HALF_OPEN
    assert breaker.try_acquire() is None
    assert list(generator) == []
    assert breaker.state is CLOSED


@pytest.mark.anyio
async def test_generators_hear_what_is_sent_and_thrown(breaker: CircuitBreaker) -> None:
    heard: list[object] = []

    @guard(breaker)
    def talk() -> Generator[str, str, None]:
        try:
            heard.append((yield "a"))
            yield "b"
        except LookupError as exc:
            heard.append(type(exc))
            yield "c"

    @guard(breaker)
    async def async_talk() -> AsyncGenerator[str, str]:
        try:
            heard.append((yield "a"))
            yield "b"
        except LookupError as exc:
            heard.append(type(exc))
            yield "c"

    generator = talk()
    assert [next(generator), generator.send("hello"), generator.throw(KeyError())] == [*"abc"]
    assert list(generator) == []
    async_generator = async_talk()
    assert await anext(async_generator) == "a"
    assert await async_generator.asend("hello") == "b"
    assert await async_generator.athrow(KeyError()) == "c"
    assert [item async for item in async_generator] == []
    assert heard == ["hello", KeyError, "hello", KeyError]
    assert counts(breaker) == (2, 0)


def test_a_guarded_context_manager_hears_its_block(breaker: CircuitBreaker) -> None:
    @contextlib.contextmanager
    @guard(breaker)
    def session() -> Iterator[str]:
        yield "session"

    with session() as given:
        assert given == "session"
    assert counts(breaker) == (1, 0)
    with pytest.raises(CallError), session():
        raise CallError
    assert counts(breaker) == (1, 1)


def test_a_generator_that_fails_is_a_failure(breaker: CircuitBreaker) -> None:
    error = CallError()

    @guard(breaker)
    def items() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(CallError) as caught:
        list(items())
    assert caught.value is error
    assert counts(breaker) == (0, 1)


@pytest.mark.anyio
async def test_a_generator_closed_early_is_not_recorded_and_is_closed(
    breaker: CircuitBreaker,
) -> None:
    closed: list[str] = []

    @guard(breaker, max_concurrent=1)
    def items() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append("sync")

    @guard(breaker, max_concurrent=1)
    async def async_items() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            await anyio.lowlevel.checkpoint()
            closed.append("async")

    for _ in range(3):
        for _ in items():
            break
        generator = async_items()
        await anext(generator)
        await generator.aclose()
    gc.collect()
    assert closed == ["sync", "async"] * 3
    assert counts(breaker) == (0, 0)


def test_a_generator_that_hides_its_early_close_is_not_recorded_either(
    breaker: CircuitBreaker,
) -> None:
    @guard(breaker)
    def swallowing() -> Generator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1

    @guard(breaker)
    def failing() -> Generator[int]:
        try:
            yield 1
        finally:
            raise CallError

    generator = swallowing()
    next(generator)
    generator.close()
    generator = failing()
    next(generator)
    with pytest.raises(CallError):
        generator.close()
    assert counts(breaker) == (0, 0)


@pytest.mark.anyio
async def test_an_async_generator_that_hides_its_early_close_is_not_recorded_either(
    breaker: CircuitBreaker,
) -> None:
    @guard(breaker)
    async def swallowing() -> AsyncGenerator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1

    @guard(breaker)
    async def failing() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            raise CallError

    generator = swallowing()
    await anext(generator)
    await generator.aclose()
    generator = failing()
    await anext(generator)
    with pytest.raises(CallError):
        await generator.aclose()
    assert counts(breaker) == (0, 0)


def test_a_generator_closed_early_in_a_trial_fails_no_trial_by_what_it_raises_after() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(consecutive_failures=1)
    health = Health(max_age=0, clock=clock)

    def rows() -> Generator[int]:
        try:
            yield 1
        finally:
            raise CallError

    def probe() -> None:
        generator = check.guard()(rows)()
        next(generator)
        with contextlib.suppress(CallError):
            generator.close()

    check = health.add("it", probe, breaker=breaker)
    fail(breaker)
    clock.advance(10)
    assert health.run_sync().ok
    assert breaker.state is CLOSED


@pytest.mark.anyio
@pytest.mark.parametrize("made", [True, False], ids=["function", "value"])
async def test_the_fallback_of_a_generator_answers_what_has_not_begun(
    breaker: CircuitBreaker, made: bool
) -> None:
    fallback: Any = (lambda: iter("xy")) if made else "xy"

    @guard(breaker, fallback=fallback)
    def items() -> Iterator[str]:
        raise CallError
        yield "never"

    @guard(breaker, fallback=fallback)
    async def async_items() -> AsyncIterator[str]:
        raise CallError
        yield "never"

    assert "".join(items()) == "xy"
    assert [item async for item in async_items()] == ["x", "y"]
    assert counts(breaker) == (0, 2)
    breaker.force_open()
    assert "".join(items()) == "xy"
    assert [item async for item in async_items()] == ["x", "y"]


@pytest.mark.anyio
async def test_the_fallback_of_an_async_generator_may_be_async(breaker: CircuitBreaker) -> None:
    async def generated(letters: str) -> AsyncIterator[str]:
        for letter in letters:
            await anyio.lowlevel.checkpoint()
            yield letter

    async def returned(letters: str) -> list[str]:
        return list(letters)

    for fallback in (generated, returned):

        @guard(refusing(), fallback=fallback)
        async def items(letters: str) -> AsyncIterator[str]:
            yield letters

        assert [item async for item in items("ab")] == ["a", "b"]


@pytest.mark.anyio
async def test_a_generator_that_has_begun_has_no_fallback(breaker: CircuitBreaker) -> None:
    @guard(breaker, fallback="xy")
    def items() -> Iterator[str]:
        yield "a"
        raise CallError

    @guard(breaker, fallback="xy")
    async def async_items() -> AsyncIterator[str]:
        yield "b"
        raise CallError

    got: list[str] = []
    with pytest.raises(CallError):
        got.extend(items())
    with pytest.raises(CallError):
        await collect(got, async_items())
    assert got == ["a", "b"]
    assert counts(breaker) == (0, 2)


@pytest.mark.anyio
async def test_a_refused_generator_without_a_fallback_raises(breaker: CircuitBreaker) -> None:
    @guard(refusing())
    def items() -> Iterator[int]:
        yield 1

    @guard(refusing())
    async def async_items() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(DependencyUnavailable):
        list(items())
    with pytest.raises(DependencyUnavailable):
        [item async for item in async_items()]


@pytest.mark.anyio
async def test_an_async_generator_may_take_the_timeout_for_each_item(
    breaker: CircuitBreaker,
) -> None:
    @guard(breaker, timeout=0.2)
    async def items() -> AsyncIterator[int]:
        for number in range(4):
            await anyio.sleep(0.1)
            yield number
        await anyio.sleep(PATIENCE)

    got: list[int] = []
    with pytest.raises(TimeoutError, match="payments did not answer"):
        await collect(got, items())
    assert got == [0, 1, 2, 3]
    assert counts(breaker) == (0, 1)


# Blocks


def test_a_block_is_a_call(breaker: CircuitBreaker) -> None:
    payments = guard(breaker)
    with payments:
        pass
    assert counts(breaker) == (1, 0)
    for _ in range(3):
        with pytest.raises(CallError), payments:
            raise CallError
    entered = False
    with pytest.raises(DependencyUnavailable), payments:
        entered = True
    assert not entered


@pytest.mark.anyio
async def test_an_async_block_is_a_call(breaker: CircuitBreaker) -> None:
    payments = guard(breaker)
    async with payments:
        await anyio.lowlevel.checkpoint()
    for _ in range(3):
        with pytest.raises(CallError):
            async with payments:
                raise CallError
    with pytest.raises(DependencyUnavailable):
        async with payments:
            raise AssertionError("was entered")
    assert counts(breaker) == (1, 3)


def test_a_block_can_tell_of_a_failure_that_raises_nothing(breaker: CircuitBreaker) -> None:
    with guard(breaker) as call:
        call.failure()
    assert counts(breaker) == (0, 1)
    with guard(breaker) as call:
        call.ignored()
    assert counts(breaker) == (0, 1)


def test_a_block_can_be_entered_again_inside_itself(breaker: CircuitBreaker) -> None:
    payments = guard(breaker)
    with payments, contextlib.suppress(CallError), payments:
        raise CallError
    assert counts(breaker) == (1, 1)
    assert breaker.snapshot().consecutive_failures == 0  # the outer one ended last


def test_blocks_of_several_guards_may_be_left_in_any_order(clock: Clock) -> None:
    breakers = [make_breaker(clock) for _ in range(3)]
    guards = [guard(breaker) for breaker in breakers]
    for one in guards:
        one.__enter__()
    for index in (1, 0, 2):
        guards[index].__exit__(None, CallError() if index == 0 else None, None)
    assert [counts(breaker) for breaker in breakers] == [(0, 1), (1, 0), (1, 0)]
    with guards[0]:
        pass
    assert counts(breakers[0]) == (1, 1)


def test_each_thread_leaves_its_own_block(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=100, slow_call_duration=5.0)
    payments = guard(breaker)
    entered, moved = threading.Barrier(2), threading.Barrier(2)

    def work(index: int) -> None:
        if index == 0:
            with payments:
                entered.wait(PATIENCE)
                moved.wait(PATIENCE)  # this one lasts 10 s
        else:
            entered.wait(PATIENCE)
            clock.forward(10)
            with payments:
                moved.wait(PATIENCE)

    in_threads(2, work)
    assert (breaker.snapshot().slow, breaker.snapshot().calls) == (1, 2)


@pytest.mark.anyio
async def test_each_task_leaves_its_own_block(clock: Clock) -> None:
    breaker = make_breaker(clock, window_calls=100, slow_call_duration=5.0)
    payments = guard(breaker)
    forwarded, second_done = anyio.Event(), anyio.Event()

    async def first() -> None:
        async with payments:
            await forwarded.wait()

    async def second() -> None:
        await forwarded.wait()
        with contextlib.suppress(CallError):
            async with payments:
                raise CallError
        second_done.set()

    # The tasks inherit the outer block, and it is not theirs to leave.
    async with payments, anyio.create_task_group() as group:
        group.start_soon(first)
        group.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        clock.forward(10)
        forwarded.set()
        await second_done.wait()
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.slow, snapshot.failures) == (3, 2, 1)


def test_a_block_may_be_left_in_another_context_than_it_was_entered_in(
    breaker: CircuitBreaker,
) -> None:
    # As FastAPI does with a sync dependency that yields: each half in a thread and a context.
    payments = guard(breaker, max_concurrent=1)

    def dependency() -> Iterator[None]:
        with payments:
            yield

    for _ in range(3):
        generator = dependency()
        copy_context().run(next, generator)
        with pytest.raises(StopIteration):
            copy_context().run(next, generator)
    assert counts(breaker) == (3, 0)


class Dropped:
    """A generator in whose block a task stands still, and that nobody reads on."""

    def __init__(self, payments: Guard[Any]) -> None:
        self._payments = payments
        self._held: list[AsyncGenerator[None]] = []

    async def _rows(self) -> AsyncGenerator[None]:
        async with self._payments:
            yield

    async def begin(self) -> None:
        self._held.append(self._rows())
        await anext(self._held[0])

    async def drop(self) -> None:
        self._held.clear()
        for _ in range(5):  # turns of the loop, which closes it in a task of its own
            await asyncio.sleep(0)


@pytest.mark.parametrize("timeout", [None, PATIENCE])
@pytest.mark.parametrize("within", [False, True], ids=["beside it", "within it"])
def test_a_generator_that_is_dropped_leaves_its_own_block(
    breaker: CircuitBreaker, timeout: float | None, within: bool
) -> None:
    payments = guard(breaker, timeout=timeout)
    dropped = Dropped(payments)

    async def innocent() -> None:
        async with payments as call:
            if within:  # as the garbage collector does, at any moment
                await dropped.drop()
            await go_on.wait()
            call.failure()

    async def main() -> None:
        await asyncio.create_task(dropped.begin())
        task = asyncio.create_task(innocent())
        await asyncio.sleep(0)
        await dropped.drop()
        go_on.set()
        await task

    go_on = asyncio.Event()
    asyncio.run(main())
    assert counts(breaker) == (0, 1)


def test_a_generator_that_is_dropped_leaves_alone_what_another_running_task_is_in(
    breaker: CircuitBreaker,
) -> None:
    payments = guard(breaker)
    dropped = Dropped(payments)

    async def careless() -> None:
        await dropped.begin()
        await go_on.wait()

    async def innocent() -> None:
        async with payments as call:
            await go_on.wait()
            call.failure()

    async def main() -> None:
        # It is told that the generator's block can't be told from the other's.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        tasks = [asyncio.create_task(call()) for call in (careless, innocent)]
        await asyncio.sleep(0)
        await dropped.drop()
        go_on.set()
        await asyncio.gather(*tasks)

    go_on = asyncio.Event()
    asyncio.run(main())
    assert counts(breaker) == (0, 1)


@pytest.mark.anyio
async def test_a_generator_may_be_handed_on_to_a_task_that_ends_it(breaker: CircuitBreaker) -> None:
    """As a response is streamed: by a child of the task that has asked for the first part."""
    payments = guard(breaker)

    async def rows(error: Exception | None) -> AsyncIterator[int]:
        async with payments:
            yield 1
            if error is not None:
                raise error

    async def read(rest: AsyncIterator[int]) -> None:
        with contextlib.suppress(CallError):
            await collect([], rest)
        ended.set()

    async def serve(error: Exception | None, begun: anyio.Event, go_on: anyio.Event) -> None:
        rest = rows(error)
        await anext(rest)
        begun.set()
        await go_on.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(read, rest)

    ended = anyio.Event()
    events = [anyio.Event() for _ in range(4)]
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(serve, CallError(), events[0], events[1])
            await events[0].wait()
            group.start_soon(serve, None, events[2], events[3])
            await events[2].wait()
            events[1].set()
            await ended.wait()
            assert counts(breaker) == (0, 1)
            events[3].set()
    assert counts(breaker) == (1, 1)


@pytest.mark.anyio
async def test_a_block_of_a_thread_is_left_by_a_thread(breaker: CircuitBreaker) -> None:
    """As a sync dependency of FastAPI's is, with the request in a block of the same guard."""
    payments = guard(breaker)

    def dependency() -> Iterator[None]:
        with payments:
            yield

    generator = dependency()
    async with payments as call:
        await anyio.to_thread.run_sync(next, generator)
        await anyio.to_thread.run_sync(next, generator, None)
        assert counts(breaker) == (1, 0)
        call.failure()
    assert counts(breaker) == (1, 1)


def test_a_block_that_nobody_else_can_have_left_may_be_left_by_any_task(
    breaker: CircuitBreaker,
) -> None:
    payments = guard(breaker)

    async def enter() -> None:
        payments.__enter__()
        entered.set()
        await left.wait()

    async def main() -> None:
        task = asyncio.create_task(enter())
        await entered.wait()
        payments.__exit__(None, None, None)
        left.set()
        await task

    entered, left = asyncio.Event(), asyncio.Event()
    asyncio.run(main())
    assert counts(breaker) == (1, 0)


def test_a_block_with_a_time_limit_can_be_left_by_its_own_task_only(
    breaker: CircuitBreaker,
) -> None:
    payments = guard(breaker, timeout=PATIENCE, max_concurrent=1)

    async def main() -> None:
        await asyncio.create_task(payments.__aenter__())
        with pytest.raises(RuntimeError, match="different task"):
            await payments.__aexit__(None, None, None)
        async with payments:  # there is a place for it
            pass

    asyncio.run(main())


def test_a_block_is_not_kept_by_those_that_are_begun_in_it_one_after_the_other(
    breaker: CircuitBreaker,
) -> None:
    guards: list[weakref.ref[Guard[Any]]] = []

    async def refresh(rounds: int) -> None:
        payments = guard(breaker)
        guards.append(weakref.ref(payments))
        async with payments:
            if rounds > 0:
                context = copy_context()  # as the loop's `call_later` does
                following.append(lambda: context.run(asyncio.create_task, refresh(rounds - 1)))
            else:
                gc.collect()
                assert sum(known() is not None for known in guards) <= 2

    async def main() -> None:
        following.append(lambda: asyncio.create_task(refresh(20)))
        while following:
            await following.pop()()

    following: list[Callable[[], asyncio.Task[None]]] = []
    asyncio.run(main())
    assert counts(breaker) == (21, 0)


def test_a_block_that_was_left_elsewhere_is_forgotten_where_it_was_entered(
    breaker: CircuitBreaker,
) -> None:
    payments = guard(breaker)
    here = copy_context()
    here.run(payments.__enter__)
    payments.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="was not entered"):
        here.run(payments.__exit__, None, None, None)
    assert counts(breaker) == (1, 0)


def test_leaving_without_entering_is_an_error(breaker: CircuitBreaker) -> None:
    with pytest.raises(RuntimeError, match="<Guard of 'payments'> is left and was not entered"):
        guard(breaker).__exit__(None, None, None)


def test_a_context_keeps_nothing_of_the_blocks_it_has_left(breaker: CircuitBreaker) -> None:
    payments = guard(breaker)
    gone = weakref.ref(payments)
    with payments:
        pass
    del payments
    gc.collect()
    assert gone() is None


def test_a_block_cannot_have_a_fallback(breaker: CircuitBreaker) -> None:
    with pytest.raises(TypeError, match="catch DependencyUnavailable"), guard(breaker, fallback=1):
        pass
    assert counts(breaker) == (0, 0)


@pytest.mark.anyio
async def test_an_async_block_cannot_have_a_fallback_either(breaker: CircuitBreaker) -> None:
    with pytest.raises(TypeError, match="catch DependencyUnavailable"):
        async with guard(breaker, fallback=1):
            raise AssertionError("was entered")


# Bulkheads


def test_so_many_at_once_and_the_rest_is_refused_at_once(breaker: CircuitBreaker) -> None:
    inside, done = threading.Semaphore(0), threading.Event()

    @guard(breaker, max_concurrent=3)
    def call() -> None:
        inside.release()
        done.wait(PATIENCE)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
        assert inside.acquire(timeout=PATIENCE)
    with pytest.raises(DependencyUnavailable) as caught:
        call()
    assert (caught.value.name, caught.value.retry_after) == ("payments", None)
    assert caught.value.__context__ is None
    assert counts(breaker) == (0, 0)
    assert breaker.snapshot().rejected == 0
    done.set()
    for thread in threads:
        thread.join(PATIENCE)
    call()
    assert counts(breaker) == (4, 0)


@pytest.mark.anyio
async def test_a_full_bulkhead_is_answered_by_the_fallback(breaker: CircuitBreaker) -> None:
    done = anyio.Event()

    @guard(breaker, max_concurrent=2, fallback="full", fallback_on="refused")
    async def call() -> str:
        await done.wait()
        return "call"

    answers: list[str] = []

    async def work() -> None:
        answers.append(await call())

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(work)
            await anyio.wait_all_tasks_blocked()
            assert answers == ["full"] * 3
            done.set()
    assert answers.count("call") == 2


@pytest.mark.anyio
async def test_a_place_is_given_back_however_the_call_ends(clock: Clock) -> None:
    breaker = make_breaker(clock, consecutive_failures=1000)
    payments = guard(breaker, max_concurrent=1, timeout=0.01)

    @payments
    async def call(how: str) -> None:
        if how == "fail":
            raise CallError
        if how == "interrupt":
            raise KeyboardInterrupt
        if how == "hang":
            await anyio.sleep(PATIENCE)

    for how in ("fail", "return", "hang", "interrupt") * 3:
        try:
            await call(how)
        except DependencyUnavailable:
            raise
        except (CallError, TimeoutError, KeyboardInterrupt):
            continue
    async with payments:
        with pytest.raises(DependencyUnavailable):
            await call("return")
    await call("return")


def test_a_refusal_by_the_breaker_gives_the_place_back(breaker: CircuitBreaker) -> None:
    payments = guard(breaker, max_concurrent=1)
    breaker.force_open()
    for _ in range(5):
        with pytest.raises(DependencyUnavailable), payments:
            pass
    breaker.reset()
    with payments:
        pass


def test_a_forked_child_has_all_places(breaker: CircuitBreaker) -> None:
    payments = guard(breaker, max_concurrent=2)
    entered, done = threading.Event(), threading.Event()

    def work() -> None:
        with payments:
            entered.set()
            done.wait(PATIENCE)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert entered.wait(PATIENCE)
    child = os.fork()
    if child == 0:
        signal.alarm(int(PATIENCE))
        try:
            with payments, payments:
                pass
            try:
                with payments, payments, payments:
                    os._exit(2)
            except DependencyUnavailable:
                os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join(PATIENCE)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.anyio
async def test_what_went_well_among_few_at_once_needs_no_fallback(breaker: CircuitBreaker) -> None:
    @guard(breaker, max_concurrent=2, fallback="stand-in")
    def charge() -> str:
        return "charged"

    @guard(breaker, max_concurrent=2, fallback="stand-in")
    async def charge_async() -> str:
        return "charged"

    assert charge() == await charge_async() == "charged"
    assert breaker.snapshot().successes == 2


def test_a_clock_that_raises_takes_no_place() -> None:
    broken = True

    def clock() -> float:
        if broken:
            raise ZeroDivisionError
        return 1000.0

    breaker = CircuitBreaker(window_calls=10, slow_call_duration=1.0, clock=clock)

    @guard(breaker, max_concurrent=1)
    def call() -> str:
        return "called"

    with pytest.raises(ZeroDivisionError):
        call()
    broken = False
    assert call() == "called"


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fallback_on": "error"}, "fallback_on"),
        ({"fallback_on": "refused"}, "needs a fallback"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"max_concurrent": 0}, "max_concurrent"),
        ({"max_concurrent": 1.5}, "max_concurrent"),
        ({"max_concurrent": 10**12}, "max_concurrent=1000000000000 must be 1000000 or less"),
        ({"max_concurrent": True}, "max_concurrent"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guard(**options)


def test_a_sync_function_cannot_have_an_async_fallback() -> None:
    async def later() -> None: ...

    async def items() -> AsyncIterator[int]:
        yield 1

    def call() -> None: ...

    fallbacks: list[Callable[[], Any]] = [later, items, functools.partial(later)]
    for fallback in fallbacks:
        with pytest.raises(TypeError, match="fallback is async"):
            guard(fallback=fallback)(call)


def test_a_generators_fallback_is_refused_at_once_where_it_has_no_items() -> None:
    def items() -> Iterator[int]:
        yield 1

    async def async_items() -> AsyncIterator[int]:
        yield 1

    for fallback in (None, 0):
        for function in (items, async_items):
            with pytest.raises(TypeError, match="fallback has no items"):
                guard(fallback=fallback)(function)
    with_items: list[Any] = [(), "ab", iter([1]), items]
    for one in with_items:
        guard(fallback=one)(items)
        guard(fallback=one)(async_items)


@pytest.mark.parametrize(
    ("called", "what"),
    [(charge, "a coroutine"), (rows, "a generator"), (async_rows, "an async generator")],
)
def test_a_fallback_that_was_called_already_is_refused(
    called: Callable[[], Any], what: str
) -> None:
    with pytest.raises(ValueError, match=f"fallback is {what}, which answers once"):
        guard(fallback=called())


def test_missing_stands_for_no_fallback(breaker: CircuitBreaker) -> None:
    @guard(refusing(), fallback=MISSING)
    def call() -> None:
        raise AssertionError("was called")

    with pytest.raises(DependencyUnavailable):
        call()


def test_one_guard_serves_asyncio_and_trio_and_threads_at_once(breaker: CircuitBreaker) -> None:
    payments = guard(breaker, timeout=PATIENCE)
    all_inside = threading.Barrier(2)

    @payments
    async def call() -> None:
        await anyio.lowlevel.checkpoint()
        all_inside.wait(PATIENCE)

    async def main() -> None:
        async with payments:
            await call()

    in_threads(2, lambda index: trio.run(main) if index else asyncio.run(main()))
    assert counts(breaker) == (4, 0)


def test_the_permit_of_a_trial_made_by_a_block_decides(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, 3)
    clock.forward(10)
    with guard(breaker, trial=True):
        assert breaker.state is HALF_OPEN
    assert breaker.state is CLOSED
    acquire(breaker).cancelled()


# Async generators that nobody reads to their end


def test_a_block_in_a_generator_that_is_dropped_gives_its_place_back() -> None:
    """The loop has another task close it, where the scope of a time limit can't be left."""
    limited = guard(timeout=PATIENCE, max_concurrent=1)

    async def rows() -> AsyncGenerator[int, None]:
        async with limited:
            yield 1

    async def read_one() -> None:
        async for _ in rows():
            break

    async def main() -> None:
        for _ in range(3):
            await asyncio.create_task(read_one())
            for _ in range(5):  # turns of the loop
                await asyncio.sleep(0)

    asyncio.run(main())


def test_the_time_limit_of_a_generator_that_is_dropped_cuts_nothing_else_short() -> None:
    limited = guard(timeout=0.2)

    async def rows() -> AsyncGenerator[int, None]:
        async with limited:
            yield 1

    async def main() -> None:
        async for _ in rows():
            break
        await asyncio.sleep(0.5)

    asyncio.run(main())


def test_a_time_limit_without_an_event_loop_takes_no_place() -> None:
    limited = guard(timeout=PATIENCE, max_concurrent=1)

    async def call() -> str:
        async with limited:
            return "well"

    with pytest.raises(Exception, match="event loop"):
        call().send(None)
    assert asyncio.run(call()) == "well"


@pytest.mark.anyio
async def test_an_async_generator_function_that_is_called_wrongly_says_so() -> None:
    @Guard(name="stock")
    async def items(number: int) -> AsyncIterator[int]:
        yield number

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        _ = [item async for item in items()]  # type: ignore[call-arg]
