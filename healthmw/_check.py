"""A check: a probe registered under a name, with its policy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar, overload

from healthmw._breaker_state import BreakerState
from healthmw._model import Reason, Result, Status
from healthmw._options import (
    MISSING,
    Missing,
    WrongTypeError,
    count,
    flag,
    name_of,
    names,
    rate,
    seconds,
    text,
)
from healthmw._probe import Probe, check_probe, is_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Literal

    from healthmw._breaker import CircuitBreaker
    from healthmw._guard import Fallback, Guard

F = TypeVar("F")

BUILTIN_GROUPS = ("ready", "live", "startup", "release")


class Check:
    """A probe and its policy, as `Health.add()` registered them.

    Not made directly. The policy is fixed; `latest` is written by the runner of this check alone.
    """

    __slots__ = (
        "_look_again",
        "breaker",
        "critical",
        "description",
        "failure_max_age",
        "failure_threshold",
        "groups",
        "interval",
        "is_async",
        "latest",
        "max_age",
        "name",
        "passive",
        "per_hour",
        "probe",
        "stale_after",
        "success_threshold",
        "timeout",
    )

    def __init__(
        self,
        name: str,
        probe: Probe,
        *,
        critical: bool,
        timeout: float,
        max_age: float,
        failure_max_age: float | None,
        per_hour: float | None,
        interval: float | None,
        stale_after: float | None,
        failure_threshold: int,
        success_threshold: int,
        groups: Iterable[str],
        breaker: CircuitBreaker | None,
        passive: bool,
        description: str,
    ) -> None:
        check_probe(probe)
        self.name: str = name_of("name", name)
        self.probe: Probe = probe
        self.is_async: bool = is_async(probe)
        self.critical: bool = flag("critical", critical)
        self.timeout: float = seconds("timeout", timeout)
        self.max_age: float = seconds("max_age", max_age, zero=True)
        self.interval: float | None = None if interval is None else seconds("interval", interval)
        self.failure_max_age: float | None = None  # as `max_age`, also where that is set anew
        if failure_max_age is not None:
            self.failure_max_age = seconds("failure_max_age", failure_max_age, zero=True)
            if self.interval is not None:
                raise ValueError(
                    "failure_max_age= is for checks that run on request, without interval="
                )
        self.per_hour: float | None = None if per_hour is None else rate("per_hour", per_hour)
        if self.interval is not None and self.interval < self.spacing:
            raise ValueError(
                f"interval={interval} is more often than per_hour={per_hour} allows: "
                f"every {self.spacing:g} s"
            )
        if stale_after is not None and self.interval is None:
            raise ValueError("stale_after= needs interval=: a check that runs on request is fresh")
        self.stale_after: float = math.inf
        if self.interval is not None:
            least = self.interval + self.timeout
            self.stale_after = (
                2 * self.interval + self.timeout
                if stale_after is None
                else seconds("stale_after", stale_after)
            )
            if self.stale_after < least:
                raise ValueError(
                    f"stale_after={stale_after} is less than interval + timeout ({least:g} s): "
                    "every result would be stale before the next one can be there"
                )
        self.failure_threshold: int = count("failure_threshold", failure_threshold)
        self.success_threshold: int = count("success_threshold", success_threshold)
        self.groups: frozenset[str] = names("groups", groups)
        self.breaker: CircuitBreaker | None = None if breaker is None else _breaker(breaker)
        self.passive: bool = flag("passive", passive)
        if self.passive and breaker is None:
            raise ValueError("passive=True needs breaker=: it is what hears the app's own calls")
        self.description: str = text("description", description)
        # Has a failure looked into that is too old to be served; for its `Health` to set.
        self._look_again: Callable[[], None] = lambda: None
        self.forget()

    def forget(self) -> None:
        """Begin anew, as if never run."""
        self.latest: Result = Result(
            name=self.name, status=Status.UNKNOWN, reason=Reason.NEVER_RUN, critical=self.critical
        )

    def __repr__(self) -> str:
        """Name the check; the probe may hold secrets and is not shown."""
        return f"<Check {self.name!r} {self.status}>"

    @property
    def status(self) -> Status:
        """The verdict as last known. Asks nobody and runs nothing."""
        if self.refusing:
            return Status.FAILED
        return self.latest.status

    @property
    def spacing(self) -> float:
        """The least time, in seconds, from the beginning of one run to that of the next."""
        return 0.0 if self.per_hour is None else 3600 / self.per_hour

    @property
    def refusing(self) -> bool:
        """Whether the breaker is open, so that neither probe nor guarded calls go through."""
        return self.breaker is not None and self.breaker._seen() in _REFUSING  # noqa: SLF001 - the same house

    @property
    def retry_after(self) -> float | None:
        """Seconds until the breaker's next trial is due; None where none will be."""
        return None if self.breaker is None else self.breaker._wait_seen()  # noqa: SLF001 - the same house

    @property
    def available(self) -> bool:
        """False while guarded calls are refused or the last verdict is FAILED.

        Cheap, for templates and feature switches. True while nothing is known yet. A failure that
        is too old to be served is looked into in the background: it doesn't last because nobody
        asks the endpoint.
        """
        if self.status is not Status.FAILED:
            return True
        if not self.refusing:
            self._look_again()
        return False

    @overload
    def guard(  # type: ignore[overload-overlap]  # MISSING is nobody's fallback
        self,
        *,
        fallback: Missing = MISSING,
        fallback_on: Literal["failure", "refused"] = "failure",
        timeout: float | None = None,
        max_concurrent: int | None = None,
    ) -> Guard[Missing]: ...
    @overload
    def guard(
        self,
        *,
        fallback: Callable[..., Awaitable[F]],
        fallback_on: Literal["failure", "refused"] = "failure",
        timeout: float | None = None,
        max_concurrent: int | None = None,
    ) -> Guard[Fallback[F]]: ...
    @overload
    def guard(
        self,
        *,
        fallback: Callable[..., F],
        fallback_on: Literal["failure", "refused"] = "failure",
        timeout: float | None = None,
        max_concurrent: int | None = None,
    ) -> Guard[Fallback[F]]: ...
    @overload
    def guard(
        self,
        *,
        fallback: F,
        fallback_on: Literal["failure", "refused"] = "failure",
        timeout: float | None = None,
        max_concurrent: int | None = None,
    ) -> Guard[Fallback[F]]: ...
    def guard(
        self,
        *,
        fallback: Any = MISSING,
        fallback_on: Literal["failure", "refused"] = "failure",
        timeout: float | None = None,
        max_concurrent: int | None = None,
    ) -> Guard[Any]:
        """Wrap the app's own calls to this dependency: a decorator, `with` or `async with`.

        While the check's breaker is open a call is refused at once: `fallback` answers, or
        `DependencyUnavailable` is raised. How each call ends is told to the breaker; its own
        exception is raised unchanged. Without a breaker all pass, within `max_concurrent`.

        - `fallback`: what is returned in place of the call's result when the call is refused, or
          fails in a way that the breaker counts. A value, or a function that is given the call's
          arguments; for an async function it may be async too. For a generator function it is, or
          returns, an iterable.
        - `fallback_on`: with `"refused"` a call that fails raises what it raised.
        - `timeout`: seconds that an async call may take. Then it is cancelled and `TimeoutError`
          raised: a failure.
        - `max_concurrent`: how many calls may be under way at once through this guard. More are
          refused at once, and the breaker does not hear of it.

        In a block, `with guard as call:`, `call.failure()` tells of a failure that raises nothing.
        """
        from healthmw._guard import Guard

        return Guard(
            name=self.name,
            breaker=self.breaker,
            fallback=fallback,
            fallback_on=fallback_on,
            timeout=timeout,
            max_concurrent=max_concurrent,
            trial=False,  # the probe makes the trial: no user's call is a guinea pig
        )


def _breaker(breaker: object) -> CircuitBreaker:
    """Return `breaker` if it is one."""
    # Breakers and guards cost as much to import as all else that checks need, so they are loaded
    # where there is a breaker: guards with it, for one may be made when no file is to be had.
    from healthmw import _guard  # noqa: F401
    from healthmw._breaker import CircuitBreaker

    if not isinstance(breaker, CircuitBreaker):
        raise WrongTypeError(f"breaker must be a CircuitBreaker, not {type(breaker).__name__}")
    return breaker


_REFUSING = frozenset({BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.FORCED_OPEN})
