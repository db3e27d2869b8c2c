"""The four kinds of function that a guard wraps.

A call through a closed breaker is what an app pays for all day, so the functions take a short way:
they look at the breaker's phase themselves, and where a success would only be counted they count it
and make no permit. Whatever else happens goes the long way, through `Gate.begin` and `Call.end`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterable
from concurrent.futures import Future
from contextlib import _AsyncGeneratorContextManager, _GeneratorContextManager
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Literal

import anyio

from healthmw._options import WrongTypeError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from healthmw._guard_gate import Call, Gate

Kind = Literal["function", "coroutine function", "generator function", "async generator function"]

# What a plain function may return before the call that it makes has ended, and what to do instead.
# By its very type, which costs next to nothing to ask for. Whatever else can be awaited, iterated
# or entered may be a result all the same: a response, a client, a proxy.
_AWAIT = "guard an `async def` that awaits it"
_GENERATE = "guard the generator function itself"
_UNENDED: dict[type, tuple[str, str]] = {
    CoroutineType: ("a coroutine", _AWAIT),
    asyncio.Task: ("a task", _AWAIT),
    asyncio.Future: ("a future", _AWAIT),
    Future: ("a future", "guard what waits for its result"),
    GeneratorType: ("a generator", _GENERATE),
    AsyncGeneratorType: ("an async generator", _GENERATE),
    _GeneratorContextManager: ("a context manager", "put @guard below @contextmanager"),
    _AsyncGeneratorContextManager: ("a context manager", "put @guard below @asynccontextmanager"),
}


def kind_of(function: Callable[..., Any]) -> Kind:
    """Tell what calling `function` gives."""
    while isinstance(function, functools.partial):
        function = function.func
    for target in (function, type(function).__call__):
        if inspect.iscoroutinefunction(target):
            return "coroutine function"
        if inspect.isgeneratorfunction(target):
            return "generator function"
        if inspect.isasyncgenfunction(target):
            return "async generator function"
    return "function"


def check_fallback(fallback: object) -> None:
    """Raise `WrongTypeError` for what was called already, and has one answer and no more."""
    if type(fallback) in _UNENDED:
        if isinstance(fallback, CoroutineType):
            fallback.close()
        what, _ = _UNENDED[type(fallback)]
        raise WrongTypeError(f"fallback is {what}, which answers once: give the function, uncalled")


def wrap_function(function: Callable[..., Any], gate: Gate) -> Callable[..., Any]:
    """Guard a function."""
    breaker, limited = gate.breaker, gate.bulkhead is not None
    answers_failures = gate.answers_failures

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        call: Call | None = None
        phase = breaker._phase  # noqa: SLF001 - the short way in; a method would double its cost
        if limited or not phase.quick:
            call = gate.begin()
            if call is None:
                return gate.answer(args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:
            if (call or gate.late(phase)).end(exc) and answers_failures:
                gate.tell(exc)
                return gate.answer(args, kwargs)
            raise
        if type(result) in _UNENDED:
            _refuse(function, call, result)
        if call is None and not phase.streak:
            phase.hit()
        elif (call or gate.late(phase)).end(None, result) and answers_failures:
            return gate.answer(args, kwargs)
        return result

    return guarded


def wrap_coroutine_function(
    function: Callable[..., Any], gate: Gate, timeout: float | None
) -> Callable[..., Any]:
    """Guard a coroutine function."""
    breaker, limited = gate.breaker, gate.bulkhead is not None
    answers_failures = gate.answers_failures

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        call: Call | None = None
        phase = breaker._phase  # noqa: SLF001 - the short way in; a method would double its cost
        if limited or not phase.quick:
            call = gate.begin()
            if call is None:
                return await _answer(gate, args, kwargs)
        limit = None if timeout is None else _Limit(gate.name, timeout)
        try:
            result = await (
                function(*args, **kwargs)
                if limit is None
                else limit.hold(function(*args, **kwargs))
            )
        except BaseException as exc:
            expired = limit is not None and limit.expired
            if (call or gate.late(phase)).end(exc, expired=expired) and answers_failures:
                gate.tell(exc)
                return await _answer(gate, args, kwargs)
            raise
        if call is None and not phase.streak:
            phase.hit()
        elif (call or gate.late(phase)).end(None, result) and answers_failures:
            return await _answer(gate, args, kwargs)
        return result

    return guarded


def wrap_generator_function(function: Callable[..., Any], gate: Gate) -> Callable[..., Any]:
    """Guard a generator function, from the first item that is asked for to its end."""
    answers_failures = gate.answers_failures

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        call = gate.begin()
        if call is None:
            return (yield from gate.answer(args, kwargs))
        began = False
        try:
            inner = function(*args, **kwargs)
            item = next(inner)
            while True:
                began = True
                try:
                    sent = yield item
                except BaseException as exc:  # noqa: BLE001 - passed on, to whom it is meant for
                    call.end_if_closed(exc)
                    item = inner.throw(exc)
                else:
                    item = inner.send(sent)
        except StopIteration as stop:
            call.end(None, stop.value)
            return stop.value
        except BaseException as exc:
            # What was yielded can't be taken back, and an answer after it would be two.
            if not call.end(exc) or began or not answers_failures:
                raise
            gate.tell(exc)
        return (yield from gate.answer(args, kwargs))

    return guarded


def wrap_async_generator_function(
    function: Callable[..., Any], gate: Gate, timeout: float | None
) -> Callable[..., Any]:
    """Guard an async generator function likewise; `timeout` bounds the wait for each item."""
    answers_failures = gate.answers_failures

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        call = gate.begin()
        if call is not None:
            began = False
            limit = _Limit(gate.name, timeout)
            inner = None
            try:
                inner = function(*args, **kwargs)
                item = await limit.hold(anext(inner))
                while True:
                    began = True
                    try:
                        sent = yield item
                    except BaseException as exc:  # noqa: BLE001 - passed on, as above
                        call.end_if_closed(exc)
                        item = await limit.hold(inner.athrow(exc))
                    else:
                        item = await limit.hold(inner.asend(sent))
            except StopAsyncIteration:
                call.end(None)
                return
            except BaseException as exc:
                failed = call.end(exc, expired=limit.expired)
                await limit.close(inner)
                if not failed or began or not answers_failures:
                    raise
                gate.tell(exc)
        async for item in _answer_items(gate, args, kwargs):
            yield item

    return guarded


class _Limit:
    """The guard's own timeout, and whether it was what ended the call."""

    __slots__ = ("_name", "_timeout", "expired")

    def __init__(self, name: str, timeout: float | None) -> None:
        self._name = name
        self._timeout = timeout
        self.expired = False

    async def hold(self, step: Awaitable[Any]) -> Any:
        """Await `step` for no longer than the timeout, and then raise `TimeoutError`."""
        if self._timeout is None:
            return await step
        scope = anyio.move_on_after(self._timeout)
        result = None
        try:
            with scope:
                result = await step
        except BaseException as exc:
            if outlasted(scope, exc):
                raise self._expire(self._timeout) from exc
            raise
        if outlasted(scope, None):
            raise self._expire(self._timeout)
        return result

    async def close(self, generator: AsyncGenerator[Any, Any] | None) -> None:
        """Close `generator` if it had been cut short, for it may have an item all the same."""
        if self.expired and generator is not None:
            await self.hold(generator.aclose())

    def _expire(self, timeout: float) -> TimeoutError:
        self.expired = True
        return TimeoutError(f"{self._name} did not answer within {timeout:g} s")


def outlasted(scope: anyio.CancelScope, exception: BaseException | None) -> bool:
    """Tell whether what ended with `exception` had been cancelled by its time limit, `scope`.

    Whatever it made of that: an error of its own, or a result, as a thread has that can't be
    interrupted. Only what ends more than this call is not for its limit to replace.
    """
    return scope.cancel_called and (exception is None or isinstance(exception, Exception))


async def _answer(gate: Gate, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the fallback's answer; async functions may have a sync fallback."""
    answer = gate.answer(args, kwargs)
    return await answer if inspect.isawaitable(answer) else answer


async def _answer_items(
    gate: Gate, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncGenerator[Any]:
    """Yield the items of the fallback's answer, which may be async or not."""
    answer = await _answer(gate, args, kwargs)
    if isinstance(answer, AsyncIterable):
        async for item in answer:
            yield item
    else:
        for item in answer:
            yield item


def _refuse(function: object, call: Call | None, result: object) -> None:
    """Raise `TypeError`: what has not ended, or not begun, can't be judged."""
    if isinstance(result, CoroutineType):
        result.close()
    if call is not None:
        call.ignored()
        call.end(None)
    what, instead = _UNENDED[type(result)]
    raise TypeError(
        f"{function!r} returned {what}, so its guard would hear of no failure: {instead}"
    )
