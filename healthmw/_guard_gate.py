"""The gate that a guard's calls pass: a place in the bulkhead, and a permit of the breaker."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from healthmw._breaker import CircuitBreaker, Permit
from healthmw._breaker_state import BreakerState, Outcome
from healthmw._fork import each_in_child
from healthmw._options import MISSING
from healthmw._probe import probing
from healthmw._scrub import outlived, scrub_traceback
from healthmw.exceptions import DependencyUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from healthmw._breaker_phase import Phase


_logger = logging.getLogger("healthmw")

# Disabled, a breaker lets all pass and keeps nothing, so this one serves all guards without.
_NO_BREAKER = CircuitBreaker()
_NO_BREAKER.disable()


class Bulkhead:
    """So many places, and who finds none is not kept waiting."""

    __slots__ = ("__weakref__", "_free", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        # To pop and to append is one step of the interpreter each, so no lock is needed.
        self._free = deque([None] * size, maxlen=size)
        _bulkheads.add(self)

    def take(self) -> bool:
        """Take a place, if one is free."""
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def give_back(self) -> None:
        """Free a place that was taken."""
        self._free.append(None)

    def after_fork(self) -> None:
        """Free every place: the threads that held them are the parent's."""
        self._free.extend([None] * self._size)


_bulkheads = each_in_child(Bulkhead.after_fork)


class Call:
    """A call that was let through; what `with guard as call:` gives."""

    __slots__ = ("_breaker", "_bulkhead", "_permit", "_phase")

    def __init__(
        self,
        breaker: CircuitBreaker,
        phase: Phase,
        permit: Permit | None = None,
        bulkhead: Bulkhead | None = None,
    ) -> None:
        self._breaker = breaker
        self._phase = phase
        self._permit = permit
        self._bulkhead = bulkhead

    def failure(self) -> None:
        """Tell the breaker of a failure that raises nothing: an answer that is none, say."""
        self._answer().failure()

    def ignored(self) -> None:
        """Tell the breaker nothing, however the call will end."""
        self._answer().ignored()

    def end(
        self, exception: BaseException | None, result: object = None, *, expired: bool = False
    ) -> bool:
        """End the call; return whether the breaker takes its end for a failure.

        `expired` says that the guard's own timeout ended it.
        """
        bulkhead, self._bulkhead = self._bulkhead, None
        if bulkhead is not None:
            bulkhead.give_back()
        if expired:
            self._answer().failure()
            return True
        if self._permit is None and exception is None and not self._phase.streak:
            self._phase.hit()
            return False
        return self._answer().record(exception, result) is Outcome.FAILURE

    def _answer(self) -> Permit:
        if self._permit is None:
            self._permit = Permit(self._breaker, self._phase, 0.0)
        return self._permit

    def end_if_closed(self, exception: BaseException) -> None:
        """End it here if its generator is being closed, whatever that makes of it."""
        if isinstance(exception, GeneratorExit):
            self.end(exception)


class _TrialsCall(Call):
    """A call of the very probe that makes the trial, whose permit it has.

    A failure of it is the trial's; of a success the probe itself is to tell.
    """

    __slots__ = ("_says_nothing",)

    def __init__(
        self, breaker: CircuitBreaker, phase: Phase, trial: Permit, bulkhead: Bulkhead | None
    ) -> None:
        super().__init__(breaker, phase, trial, bulkhead)
        self._says_nothing = False

    def ignored(self) -> None:
        self._says_nothing = True

    def end(
        self, exception: BaseException | None, result: object = None, *, expired: bool = False
    ) -> bool:
        bulkhead, self._bulkhead = self._bulkhead, None
        if bulkhead is not None:
            bulkhead.give_back()
        if self._says_nothing:
            return False
        self._says_nothing = True  # from here on: a permit is answered once, too
        judge = self._breaker._judge  # noqa: SLF001 - the same house
        failed = expired or judge(exception, result) is Outcome.FAILURE
        if failed:
            self._answer().failure()
        return failed


class Gate:
    """What all calls through one guard share."""

    __slots__ = (
        "_trial",
        "answers_failures",
        "breaker",
        "bulkhead",
        "fallback",
        "name",
    )

    def __init__(
        self,
        *,
        name: str,
        breaker: CircuitBreaker | None,
        fallback: object,
        answers_failures: bool,
        max_concurrent: int | None,
        trial: bool,
    ) -> None:
        self.name = name
        self.breaker = _NO_BREAKER if breaker is None else breaker
        self.fallback = fallback
        self.answers_failures = answers_failures and fallback is not MISSING
        self._trial = trial
        self.bulkhead = None if max_concurrent is None else Bulkhead(max_concurrent)

    def begin(self) -> Call | None:
        """Let one call through, or return None: it is refused, and the fallback is to answer.

        Raises `DependencyUnavailable` where there is no fallback.
        """
        try:
            return self.admit()
        except DependencyUnavailable:
            if self.fallback is MISSING:
                raise
            return None

    def admit(self) -> Call:
        """Let one call through, or raise `DependencyUnavailable`.

        A new one each time: an exception that is raised again and again grows its traceback.
        """
        bulkhead = self.bulkhead
        if bulkhead is not None and not bulkhead.take():
            raise DependencyUnavailable(self.name)
        phase = self.breaker._phase  # noqa: SLF001 - as in the wrappers, and for the same reason
        if phase.quick:
            return Call(self.breaker, phase, None, bulkhead)
        if phase.trials and (trial := probing.get()) in phase.trials:
            return _TrialsCall(self.breaker, phase, trial, bulkhead)
        permit = None
        try:
            permit = self.breaker.try_acquire(trial=self._trial)
        finally:
            if permit is None and bulkhead is not None:
                bulkhead.give_back()
        if permit is None:
            raise DependencyUnavailable(self.name, self.breaker.retry_after)
        return Call(self.breaker, phase, permit, bulkhead)

    def late(self, phase: Phase) -> Call:
        """Return the call that took the short way in, for it has more to tell than a success."""
        return Call(self.breaker, phase)

    def tell(self, exception: BaseException) -> None:
        """Log why the fallback answers, as nobody else will; aloud if it opened the circuit."""
        level, phase = logging.DEBUG, self.breaker._phase  # noqa: SLF001 - as above
        # All that were under way as it opened may fail: so many tracebacks would tell no more.
        if phase.state is BreakerState.OPEN and not phase.told:
            level, phase.told = logging.WARNING, True
        if _logger.isEnabledFor(level):
            with outlived():
                _logger.log(
                    level,
                    "check %s: a guarded call failed, and its fallback answers\n%s",
                    self.name,
                    scrub_traceback(exception),
                )

    def answer(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the fallback's answer in place of the call's."""
        return self.fallback(*args, **kwargs) if callable(self.fallback) else self.fallback
