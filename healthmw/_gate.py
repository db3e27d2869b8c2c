"""What a caller may see and ask for: the `show=` and `authorize=` of the middlewares."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import time
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

from healthmw._loop import current_loop
from healthmw._options import WrongTypeError
from healthmw._scrub import outlived, scrub_exception
from healthmw._throttle import Throttle
from healthmw._view import Level
from healthmw.exceptions import WrongCredentialsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from healthmw.access import Authorizer, Caller

_REFUSALS = (Exception, SystemExit)
"""What an authorizer may raise. A `SystemExit` would end the loop, and with it the server."""

logger = logging.getLogger("healthmw")


class Standing(Enum):
    """How a caller stands."""

    ANONYMOUS = "anonymous"
    AUTHORISED = "authorised"
    WRONG = "wrong"
    """Credentials were shown, and they are wrong."""
    THROTTLED = "throttled"
    """Credentials were shown, and not looked at: too many before them were wrong."""


class Gate:
    """Judges callers. Asks each authorizer until one grants; one that raises has not granted."""

    def __init__(
        self,
        *,
        show: str,
        authorize: Authorizer | Iterable[Authorizer] | None,
        clock: Callable[[], float],
    ) -> None:
        try:
            self.level = Level(show)
        except ValueError:
            known = ", ".join(repr(str(level)) for level in Level)
            raise ValueError(f"show={show!r} must be one of {known}") from None
        self._authorizers = _authorizers(authorize)
        self.open = not self._authorizers
        """Whether nobody is asked for anything: then nobody is authorised."""
        self.is_async = any(_is_async(authorizer) for authorizer in self._authorizers)
        challenges = [_challenge(authorizer) for authorizer in self._authorizers]
        self.challenge = ", ".join(dict.fromkeys(filter(None, challenges)))
        self._throttle = Throttle(clock)
        # Who has called credentials wrong can be guessed at: by the place among the authorizers.
        self._guessable: set[int] = set()
        # And of whom it is known that they don't come back.
        self._late: set[int] = set()

    def standing(self, caller: Caller) -> Standing:
        """Judge `caller`."""
        inquiry = self._inquiry(caller)
        for authorizer in self._authorizers:
            with inquiry:
                inquiry.hear(inquiry.ask(authorizer))
        return self._concluded(inquiry)

    async def standing_async(self, caller: Caller, seconds: float) -> Standing:
        """Judge `caller`, by functions that may have to wait: for `seconds`, all together.

        One that is not back by then has not granted.
        """
        inquiry = self._inquiry(caller)
        until = time.monotonic() + seconds
        for number, authorizer in enumerate(self._authorizers):
            with inquiry:
                answer = inquiry.ask(authorizer)
                if inspect.isawaitable(answer):
                    left = max(until - time.monotonic(), 0.0)
                    try:
                        answer = await _answer_within(left, answer)
                    except _LateError:
                        if left:
                            self._warn_of(number, seconds)
                        continue
                    self._late.discard(number)
                inquiry.hear(answer)
        return self._concluded(inquiry)

    def _warn_of(self, late: int, seconds: float) -> None:
        if late not in self._late:
            self._late.add(late)
            with outlived():
                logger.warning(
                    "authorize: number %d was not back within the %g s that all have together; "
                    "it grants nothing",
                    late + 1,
                    seconds,
                )

    def _inquiry(self, caller: Caller) -> _Inquiry:
        throttled = self._throttle.wait(caller.peer) > 0
        return _Inquiry(caller, throttled=throttled, guessable=self._guessable)

    def _concluded(self, inquiry: _Inquiry) -> Standing:
        if inquiry.granted:
            return Standing.AUTHORISED
        if inquiry.unheard:
            return Standing.THROTTLED
        if inquiry.wrong:
            self._throttle.wrong(inquiry.caller.peer)
            return Standing.WRONG
        return Standing.ANONYMOUS


class _LateError(Exception):
    """What was waited for is not back in time."""


async def _answer_within(seconds: float, answer: Awaitable[object]) -> object:
    """Return the answer, or raise what it raises; after `seconds` cancel it and raise `_LateError`.

    It has a task of its own, in the caller's context, which is left behind when it takes its time
    to clean up, or does not give in to its cancellation.
    """
    loop = current_loop()
    assert loop is not None  # noqa: S101 - for the type checker: a coroutine is run by one
    back = loop.promise()

    async def ask() -> None:
        value, error = None, None
        try:
            value = await answer
        except BaseException as exc:
            if loop.is_cancelled(exc) or isinstance(exc, KeyboardInterrupt):
                raise  # nobody waits for it any more; or it is the user's, and meant for us all
            error = exc
        loop.keep(back, (value, error))

    cancel = loop.spawn(ask, contextvars.copy_context())
    try:
        await loop.wait(back, seconds)
    finally:
        if not back.done():
            cancel()
    if not back.done():
        raise _LateError
    value, error = await back
    if error is None:
        return value
    if not isinstance(error, asyncio.CancelledError):
        raise error
    # Where authorizers share a task of theirs, one that is late cancels it for all.
    raise RuntimeError("it was cancelled by others") from error


class _Inquiry:
    """What the authorizers say of one caller. As a context manager it takes what they raise."""

    def __init__(self, caller: Caller, *, throttled: bool, guessable: set[int]) -> None:
        self.caller = caller
        self._guessable = guessable
        self._asked = 0
        self.granted = False
        self.wrong = False
        self.unheard = False
        self._throttled = throttled

    def ask(self, authorizer: Authorizer) -> object:
        self._asked += 1
        if self.granted:
            return False
        if self._throttled and _challenge(authorizer):
            self.unheard = self.unheard or bool(self.caller.header("authorization"))
            return False
        return authorizer(self.caller)

    def hear(self, answer: object) -> None:
        if not isinstance(answer, bool):  # a coroutine would be as good as a yes
            if inspect.iscoroutine(answer):
                answer.close()
            raise TypeError(f"authorize must return True or False, not {type(answer).__name__}")
        if answer and self._throttled and self._asked in self._guessable:
            self.unheard = True  # or guessing would go on: the right one would show
        else:
            self.granted = self.granted or answer

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(exc, WrongCredentialsError):
            self._guessable.add(self._asked)
            self.wrong = True
            self.unheard = self.unheard or self._throttled
        elif isinstance(exc, _REFUSALS):
            with outlived():
                logger.error("authorize: nothing is granted: %s", scrub_exception(exc))
        return isinstance(exc, _REFUSALS)


def _authorizers(authorize: Authorizer | Iterable[Authorizer] | None) -> tuple[Authorizer, ...]:
    if authorize is None:
        return ()
    if callable(authorize):
        _check_instance(authorize)
        return (authorize,)
    several: object = authorize
    if isinstance(several, str | bytes) or not isinstance(several, Iterable):
        raise WrongTypeError(
            f"authorize must be a function, or several, not {type(several).__name__}; "
            "for a token write authorize=Token(...)"
        )
    found = tuple(authorize)
    for one in found:
        if not callable(one):
            raise WrongTypeError(f"authorize must hold functions, not {type(one).__name__}")
        _check_instance(one)
    if not found:
        raise ValueError("authorize is empty: leave it out to authorise nobody")
    return found


def _check_instance(authorizer: object) -> None:
    if inspect.isclass(authorizer):  # whose calls make instances, and judge nobody
        name = authorizer.__name__
        raise WrongTypeError(f"authorize: {name} is a class: write authorize={name}(...)")


def _challenge(authorizer: Authorizer) -> str:
    challenge = getattr(authorizer, "challenge", "")
    return challenge if isinstance(challenge, str) else ""


def _is_async(authorizer: object) -> bool:
    while isinstance(authorizer, functools.partial):
        authorizer = authorizer.func
    return inspect.iscoroutinefunction(authorizer) or inspect.iscoroutinefunction(
        getattr(authorizer, "__call__", None)  # noqa: B004 - not asking whether, but which kind
    )
