"""ASGI's lifespan: a life inside the app's own."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio

from healthmw._drain import DRAINER
from healthmw._options import seconds
from healthmw._scrub import log_exception
from healthmw._startup import NotStartedError, wait_until_started
from healthmw._timings import warn_of_platform

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from healthmw._health import Health

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

_CLOSING = 10.0
"""How long, in seconds, an app may take to close what it opened when its start-up has failed."""

logger = logging.getLogger("healthmw")


class Life:
    """Starts a `Health` when its app has started, and stops it before the app stops.

    Call it with what a server gives to the app: it passes all messages between them. With
    `startup_timeout`, the app counts as started when its group `startup` has passed. With
    `drain_delay`, it drains for so long before it stops.
    """

    def __init__(
        self, health: Health, *, startup_timeout: float | None, drain_delay: float | None
    ) -> None:
        self._health = health
        self._startup_timeout = startup_timeout
        self.drains = DRAINER.add(health, drain_delay)
        """Whether `drain_delay` is given, and heeded."""
        if startup_timeout is not None:
            warn_of_platform("startup_timeout", seconds("startup_timeout", startup_timeout))

    async def __call__(
        self, app: Callable[..., Awaitable[None]], scope: Any, receive: Receive, send: Send
    ) -> None:
        """Live one life."""
        passage = _Passage(self._start, receive, send)
        ended: Exception | None = None
        try:
            with passage.limit:
                await passage.through(app, scope)
        except Exception as exc:
            if passage.told:
                raise
            ended = exc
        if not passage.told and self._startup_timeout is not None:
            # It knows of no lifespan, as Django doesn't: its server goes on without one.
            try:
                self._health.validate()
                await wait_until_started(self._health, self._startup_timeout)
            except Exception as exc:  # noqa: BLE001 - it is told, and raised, as below
                passage.failure = exc
                if ended is not None:
                    log_exception(logger, ended, "the app has no lifespan, or that has failed")
        if passage.failure is not None:
            # The very last thing: at once hypercorn looks whether this was the end.
            message = f"healthmw: {passage.failure}"
            await send({"type": "lifespan.startup.failed", "message": message})
            if not isinstance(passage.failure, NotStartedError):  # that is no defect, and told
                raise passage.failure
        elif ended is not None:
            raise ended

    async def _start(self, life: AsyncExitStack) -> None:
        await life.enter_async_context(self._health)
        if self._startup_timeout is not None:
            await wait_until_started(self._health, self._startup_timeout)
        if self.drains and not DRAINER.arm(again=True):
            logger.warning(
                "drain_delay has no effect here: no handler for SIGTERM that can be put off"
            )


class _Passage:
    """The messages of one life, on their way between server and app."""

    def __init__(
        self, start: Callable[[AsyncExitStack], Awaitable[None]], receive: Receive, send: Send
    ) -> None:
        self.failure: Exception | None = None
        self.told = False
        """Whether the app has said how its start-up went."""
        self.limit = anyio.CancelScope()
        self._life = AsyncExitStack()
        self._start = start
        self._receive = receive
        self._send = send

    async def through(self, app: Callable[..., Awaitable[None]], scope: Any) -> None:
        async with self._life:
            try:
                await app(scope, self._receiving, self._sending)
            except Exception as exc:
                if self.failure is None:
                    raise
                log_exception(logger, exc, "the app raised while it closed what it had opened")

    async def _receiving(self) -> Message:
        # No server tells an app to shut down whose start-up failed. Yet this one did start, and may
        # have to close what it opened.
        message = await self._receive() if self.failure is None else {"type": "lifespan.shutdown"}
        if message["type"] == "lifespan.shutdown":
            await self._life.aclose()
        return message

    async def _sending(self, message: Message) -> None:
        # Else it takes this for a request, and knows of no lifespan.
        self.told = self.told or message["type"].startswith("lifespan.")
        if self.failure is None and message["type"] == "lifespan.startup.complete":
            try:
                await self._start(self._life)
            except Exception as exc:  # noqa: BLE001 - it is told, and raised, when all is closed
                self.failure = exc
                self.limit.deadline = anyio.current_time() + _CLOSING
        if self.failure is None:  # else it hears of it at the end, and no more
            await self._send(message)
