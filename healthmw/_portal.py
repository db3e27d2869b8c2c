"""One event-loop thread a process, for callers that have no event loop: WSGI, the command line.

Started on first use, in a daemon thread, and again in a child after `fork`. It lives as long as the
process, so that connections and runs under way survive from one call to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import anyio

from healthmw._loop import AsyncioLoop, current_loop
from healthmw._native import Lock, greened, settle, start_real_thread

if TYPE_CHECKING:
    from healthmw._loop_protocol import Loop


class Portal:
    """The process's own event loop."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the thread and its loop: they are the parent's."""
        self._lock = Lock()
        self._loop: AsyncioLoop | None = None

    def loop(self) -> Loop:
        """Return the loop, started when need be."""
        with self._lock:
            if self._loop is None or not self._loop.alive:
                self._loop = self._start()
            return self._loop

    @staticmethod
    def _start() -> AsyncioLoop:
        settle()
        # Under gevent the sockets of a loop belong to the thread that makes them, so it is made
        # there; and while a loop ran in this thread, all its greenlets would be taken for tasks.
        made = [] if greened() else [asyncio.new_event_loop()]
        started: list[AsyncioLoop] = []
        running = Lock()
        running.acquire()  # an event that is nothing else: to be released by the loop

        def note() -> None:
            started.append(AsyncioLoop(asyncio.get_running_loop()))
            running.release()

        def serve() -> None:
            try:
                loop = made[0] if made else _green_loop()
                asyncio.set_event_loop(loop)
                loop.call_soon(note)
                loop.run_forever()
            finally:
                if not started:
                    running.release()

        try:
            if made and current_loop() is None:
                made[0].run_until_complete(warm_up())
            start_real_thread(serve, "healthmw-portal")
        except BaseException:
            for loop in made:
                loop.close()
            raise
        running.acquire()
        if not started:
            raise RuntimeError("healthmw's event loop could not be started")
        return started[0]


def _green_loop() -> asyncio.AbstractEventLoop:
    from healthmw._greenlets import Greenlets

    loop = asyncio.new_event_loop()
    # What goes to an executor, as looking up a name does, is done by greenlets of this thread. The
    # usual one is waited for when the process ends; and in the main thread, that is for ever.
    loop.set_default_executor(Greenlets())
    return loop


async def warm_up() -> None:
    """Have imported here and now what anyio imports on first use.

    When another thread forks while the portal's is in the middle of an import, then in the child
    that import never ends.
    """
    with anyio.move_on_after(0):
        await anyio.Event().wait()
    await anyio.sleep(0)  # noqa: ASYNC115 - not for the checkpoint, but for the function


def load_anyio() -> None:
    """Have imported what anyio imports on first use on the kind of event loop that runs here.

    Later, when checks are closed or a guarded call is given up, there may be no file to be had.
    """
    with contextlib.suppress(RuntimeError):  # it knows the loop by its tasks, and this is none
        anyio.current_time()
        anyio.move_on_after(0)
        anyio.Event()


PORTAL = Portal()
