"""An executor for an event loop under gevent."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from healthmw._native import spawn_here

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Greenlets(ThreadPoolExecutor):
    """Runs each call in a greenlet of the thread that submits it."""

    def submit(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `call` soon."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call(*args, **kwargs))
                except BaseException as exc:  # noqa: BLE001 - raised again where it is waited for
                    future.set_exception(exc)

        spawn_here(run)
        return future
