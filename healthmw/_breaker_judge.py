"""What a breaker takes the end of a call for: the user's predicates, asked with care."""

from __future__ import annotations

import logging
from types import FunctionType
from typing import TYPE_CHECKING, Any

from healthmw._breaker_state import Outcome
from healthmw._options import WrongTypeError, check_function
from healthmw._scrub import log_exception

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger("healthmw")


class Judge:
    """Classifies results and exceptions. `CircuitBreaker` says what the options mean.

    It runs the user's code, so never ask it under a lock.
    """

    __slots__ = ("_ignore", "_is_failure", "_is_failure_result", "reads_results")

    def __init__(
        self,
        *,
        is_failure: Callable[[Exception], bool] | None,
        ignore: type[BaseException] | tuple[type[BaseException], ...],
        is_failure_result: Callable[[Any], bool] | None,
    ) -> None:
        self._is_failure = is_failure
        self._ignore = ignore if isinstance(ignore, tuple) else (ignore,)
        self._is_failure_result = is_failure_result
        self.reads_results = is_failure_result is not None
        for given in self._ignore:
            if not _is_exception_class(given):
                raise WrongTypeError(
                    f"ignore must be an exception class or a tuple of them, not {given!r}"
                )
        if is_failure is not None:
            check_function("is_failure", is_failure)
        if is_failure_result is not None:
            check_function("is_failure_result", is_failure_result)

    def __call__(self, exception: BaseException | None, result: object) -> Outcome:
        """Return what `exception` or, without one, `result` is taken for."""
        if exception is None:
            if self._is_failure_result is None or not _ask(self._is_failure_result, result):
                return Outcome.SUCCESS
            return Outcome.FAILURE
        # asyncio.CancelledError, trio.Cancelled, GeneratorExit, KeyboardInterrupt, SystemExit, and
        # groups with one of them: somebody gave up, and nothing was learned about the dependency.
        if not isinstance(exception, Exception):
            return Outcome.CANCELLED
        if self._ignores(exception):
            return Outcome.IGNORED
        if self._is_failure is None or _ask(self._is_failure, exception):
            return Outcome.FAILURE
        return Outcome.IGNORED

    def _ignores(self, exception: BaseException) -> bool:
        if isinstance(exception, self._ignore):
            return True
        # A task group makes a group of what is raised in it, be it one exception or more.
        return isinstance(exception, BaseExceptionGroup) and all(
            self._ignores(one) for one in exception.exceptions
        )


def _is_exception_class(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, BaseException)


def _ask(predicate: Callable[[Any], bool], value: object) -> bool:
    """Return the predicate's answer; where there is none to be had, the worse of the two."""
    try:
        return bool(predicate(value))
    except Exception as exc:  # noqa: BLE001 - a predicate of the user's own may raise anything
        named = predicate if isinstance(predicate, FunctionType) else type(predicate)
        name = named.__qualname__
        # With the exception that it was asked of, which comes from a driver.
        log_exception(_logger, exc, "%s raised, so the call counts as a failure", name)
        return True
