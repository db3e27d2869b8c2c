"""Guards: what app code wraps around its calls to a dependency."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

import anyio

from healthmw._guard_blocks import Blocks
from healthmw._guard_gate import Gate
from healthmw._guard_wrappers import (
    check_fallback,
    kind_of,
    outlasted,
    wrap_async_generator_function,
    wrap_coroutine_function,
    wrap_function,
    wrap_generator_function,
)
from healthmw._options import MISSING, Missing, count, seconds

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Iterator,
    )
    from types import TracebackType

    from healthmw._breaker import CircuitBreaker
    from healthmw._guard_gate import Call

__all__ = ("Guard",)

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")
Z = TypeVar("Z")
S = TypeVar("S")
F = TypeVar("F")
F_co = TypeVar("F_co", covariant=True)
W_co = TypeVar("W_co", covariant=True)
C = TypeVar("C", bound="Callable[..., Any]")

_MOST_CONCURRENT = 1_000_000
"""More are no limit, and each is a place that is kept."""

_ASYNC = {"coroutine function", "async generator function"}

_NO_RESULT = (
    "a `with` block has no result that fallback= could stand in for: decorate a function, or leave"
    " fallback= out and catch DependencyUnavailable"
)


class Fallback(Generic[F_co]):
    """What the type checker knows a guard with a fallback by; there are no instances."""


def _check_items(fallback: object, function: object, *iterable: type) -> None:
    """Raise `TypeError` unless `fallback` has items. What a function will return is not known."""
    if fallback is not MISSING and not callable(fallback) and not isinstance(fallback, iterable):
        raise TypeError(f"fallback has no items, and {function!r} is a generator: give () for none")


def _end(
    scope: anyio.CancelScope,
    kind: type[BaseException] | None,
    exception: BaseException | None,
    traceback: TracebackType | None,
) -> tuple[bool, BaseException | None]:
    """Leave `scope`; return whether the block outlasted it, and what is left of `exception`."""
    try:
        if scope.__exit__(kind, exception, traceback):
            exception = None
    except RuntimeError:
        # An async generator that is dropped is closed by another task. Its scope can't be left
        # there; but its time limit must not cut short whatever the task it began in does next.
        scope.deadline = math.inf
        if not isinstance(exception, GeneratorExit):
            raise
    except Exception as rest:  # noqa: BLE001 - a group of exceptions, without the cancellations
        exception = rest
    return outlasted(scope, exception), exception


class Guard(Generic[W_co]):
    """Wraps calls to a dependency: a decorator, and a context manager, sync and async.

    While the breaker is open, a call is refused at once: without a `fallback` by raising
    `DependencyUnavailable`. How each call that is let through ends is told to the breaker; its own
    exception is raised unchanged.

    - `fallback`: what is returned in place of the call's result when the call is refused, or fails
      in a way that the breaker counts (`fallback_on="refused"`: only when refused). A value, or a
      function that is given the call's arguments; for an async function it may be async too. For a
      generator function it is, or returns, an iterable, and answers as long as nothing was yielded.
    - `timeout`: seconds that an async call may take (an async generator: each item). Then it is
      cancelled and `TimeoutError` raised: a failure, whatever the breaker is told to ignore, and
      whatever the call makes of its cancellation.
    - `max_concurrent`: how many calls may be under way at once through this guard. More are refused
      at once, so that a slow dependency can't take every worker; the breaker does not hear of it.
    - `trial`: whether a call may be the trial that decides if the breaker closes again.

    A generator holds its permit until it is exhausted; if it is closed early nothing is recorded.
    In a block, `with guard as call:`, `call.failure()` tells of a failure that raises nothing. Any
    number of threads and tasks may be in blocks of one guard at once, and a block inside another.
    """

    @overload
    def __init__(
        self: Guard[Missing],
        *,
        name: str,
        breaker: CircuitBreaker | None = None,
        fallback: Missing = MISSING,
        fallback_on: Literal["failure", "refused"] = "failure",
        timeout: float | None = None,
        max_concurrent: int | None = None,
        trial: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Guard[Fallback[F]],
        *,
        name: str,
        breaker: CircuitBreaker | None = None,
        fallback: Callable[..., Awaitable[F]],
        fallback_on: Literal["failure", "refused"] = "failure",
        timeout: float | None = None,
        max_concurrent: int | None = None,
        trial: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Guard[Fallback[F]],
        *,
        name: str,
        breaker: CircuitBreaker | None = None,
        fallback: Callable[..., F],
        fallback_on: Literal["failure", "refused"] = "failure",
        timeout: float | None = None,
        max_concurrent: int | None = None,
        trial: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Guard[Fallback[F]],
        *,
        name: str,
        breaker: CircuitBreaker | None = None,
        fallback: F,
        fallback_on: Literal["failure", "refused"] = "failure",
        timeout: float | None = None,
        max_concurrent: int | None = None,
        trial: bool = False,
    ) -> None: ...
    def __init__(
        self,
        *,
        name: str,
        breaker: CircuitBreaker | None = None,
        fallback: object = MISSING,
        fallback_on: Literal["failure", "refused"] = "failure",
        timeout: float | None = None,
        max_concurrent: int | None = None,
        trial: bool = False,
    ) -> None:
        if fallback_on not in {"failure", "refused"}:
            raise ValueError(f"fallback_on must be 'failure' or 'refused', not {fallback_on!r}")
        if fallback_on == "refused" and fallback is MISSING:
            raise ValueError("fallback_on='refused' needs a fallback")
        check_fallback(fallback)
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._gate = Gate(
            name=name,
            breaker=breaker,
            fallback=fallback,
            answers_failures=fallback_on == "failure",
            max_concurrent=(
                None
                if max_concurrent is None
                else count("max_concurrent", max_concurrent, most=_MOST_CONCURRENT)
            ),
            trial=trial,
        )
        self._blocks = Blocks(name)

    def __repr__(self) -> str:
        return f"<Guard of {self._gate.name!r}>"

    @overload
    def __call__(self: Guard[Missing], function: C) -> C: ...
    @overload
    def __call__(
        self: Guard[Fallback[F]], function: Callable[P, Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R | F]]: ...
    @overload
    def __call__(
        self: Guard[Fallback[Iterable[Z]]], function: Callable[P, Generator[Y, S, R]]
    ) -> Callable[P, Generator[Y | Z, S, R]]: ...
    @overload
    def __call__(
        self: Guard[Fallback[Iterable[Z]]], function: Callable[P, Iterator[Y]]
    ) -> Callable[P, Iterator[Y | Z]]: ...
    @overload
    def __call__(
        self: Guard[Fallback[AsyncIterable[Z] | Iterable[Z]]],
        function: Callable[P, AsyncGenerator[Y, S]],
    ) -> Callable[P, AsyncGenerator[Y | Z, S]]: ...
    @overload
    def __call__(
        self: Guard[Fallback[AsyncIterable[Z] | Iterable[Z]]],
        function: Callable[P, AsyncIterator[Y]],
    ) -> Callable[P, AsyncIterator[Y | Z]]: ...
    @overload
    def __call__(self: Guard[Fallback[F]], function: Callable[P, R]) -> Callable[P, R | F]: ...
    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Guard `function`. Raises `TypeError` where the options don't go with its kind."""
        # A staticmethod can be called, but what wraps it would be made a method.
        if isinstance(function, classmethod | staticmethod):
            kind_of_method = type(function).__name__
            raise TypeError(f"a guard wraps functions: put @guard below @{kind_of_method}")
        if not callable(function):
            raise TypeError(f"a guard wraps functions, not a {type(function).__name__}")
        kind, gate, timeout = kind_of(function), self._gate, self._timeout
        if kind == "coroutine function":
            return wrap_coroutine_function(function, gate, timeout)
        if kind == "async generator function":
            _check_items(gate.fallback, function, AsyncIterable, Iterable)
            return wrap_async_generator_function(function, gate, timeout)
        if timeout is not None:
            raise TypeError(f"timeout= needs an async function, and {function!r} is sync")
        if callable(gate.fallback) and kind_of(gate.fallback) in _ASYNC:
            raise TypeError(f"fallback is async, and {function!r} is not")
        if kind == "generator function":
            _check_items(gate.fallback, function, Iterable)
            return wrap_generator_function(function, gate)
        return wrap_function(function, gate)

    def __enter__(self: Guard[Missing]) -> Call:
        """Begin a call. Raises `DependencyUnavailable` if it is refused."""
        if self._timeout is not None:
            raise TypeError("timeout= needs `async with`: sync code can't be interrupted")
        if self._gate.fallback is not MISSING:
            raise TypeError(_NO_RESULT)
        return self._blocks.enter(self._gate.admit()).call

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        exception: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End the call and tell the breaker how."""
        self._blocks.leave(exception).call.end(exception)

    async def __aenter__(self: Guard[Missing]) -> Call:
        """Begin a call. Raises `DependencyUnavailable` if it is refused."""
        if self._gate.fallback is not MISSING:
            raise TypeError(_NO_RESULT)
        scope = None if self._timeout is None else anyio.move_on_after(self._timeout)
        block = self._blocks.enter(self._gate.admit())
        if scope is not None:
            block.scope = scope.__enter__()
        return block.call

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the call and tell the breaker how. Raises `TimeoutError` if it took too long."""
        block = self._blocks.leave(exception)
        expired, rest = False, exception
        try:
            if block.scope is not None:
                expired, rest = _end(block.scope, kind, exception, traceback)
        finally:
            block.call.end(exception, expired=expired)
        if expired:
            message = f"{self._gate.name} did not answer within {self._timeout:g} s"
            raise TimeoutError(message) from rest
