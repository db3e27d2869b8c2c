"""A server under trial: started in its own session, watched, stopped with all it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from healthmw.cli import _signals
from healthmw.cli._descendants import Process, descendants
from healthmw.cli._exit import CouldNotTell
from healthmw.cli._log import LogTail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_LOOK = 0.05
_KILL_LIMIT = 5.0


class Ending(NamedTuple):
    """How a server came to its end."""

    seconds: float
    waited: float
    """For how many of these seconds it was given time to end by itself."""
    killed: int
    """How many of its processes had not ended by then, and were killed."""
    left: tuple[int, ...]
    """The pids of those that could not be ended even so."""


class Server:
    """A command and all the processes that it starts. Owned by one thread.

    Standard input is empty; output and errors go to `log`.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str]) -> None:
        """Start `command`. Raises `CouldNotTell` when it can't be started."""
        self._spared = frozenset(process.pid for process in descendants())
        self.log = LogTail()
        try:
            self._main = subprocess.Popen(  # noqa: S603 - to run the user's command is the job
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=self.log.sink,
                stderr=self.log.sink,
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:
            self.log.discard()
            raise CouldNotTell(_say(exc, command[0])) from None
        self.log.start()
        self._group = self._main.pid

    @property
    def status(self) -> int | None:
        """None while the first process lives; then its exit status, negative for a signal."""
        return self._main.poll()

    def stop(self, *, grace: float, hurry: Callable[[], bool] = lambda: False) -> Ending:
        """Stop every process: TERM, up to `grace` seconds, then KILL, at once when `hurry` says so.

        TERM goes to the group. A process that left the group gets it when its parent is gone and
        not before: a living supervisor tells its children itself, and a second TERM means
        something else to many servers.
        """
        start = time.monotonic()
        told = {process.pid for process in self._members()}
        self._signal_group(signal.SIGTERM)
        while (living := self._living()) and time.monotonic() - start < grace and not hurry():
            for process in living:
                if process.parent == os.getpid() and process.pid not in told:
                    told.add(process.pid)
                    _signal(process.pid, signal.SIGTERM)
            time.sleep(_LOOK)
        killed, waited = len(living), time.monotonic() - start
        limit = time.monotonic() + _KILL_LIMIT
        while living and time.monotonic() < limit:
            self._signal_group(signal.SIGKILL)
            for process in living:
                _signal(process.pid, signal.SIGKILL)
            time.sleep(_LOOK)
            living = self._living()
        return Ending(
            seconds=time.monotonic() - start,
            waited=waited,
            killed=killed,
            left=tuple(process.pid for process in living),
        )

    def strays(self) -> int:
        """Return how many processes it has besides the first."""
        return sum(process.pid != self._main.pid for process in self._living())

    def _members(self) -> list[Process]:
        return [p for p in descendants(spare=self._spared) if p.group == self._group]

    def _living(self) -> list[Process]:
        """Return what still runs of all that was started."""
        # A daemon can slip through one look, when its parent is read just after its end; not so
        # easily through two.
        return self._look() or self._look()

    def _look(self) -> list[Process]:
        self._main.poll()
        found = descendants(spare=self._spared)
        for process in found:
            orphan = process.parent == os.getpid() and process.pid != self._main.pid
            if orphan and not process.alive:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
        if not found and self._group_exists():  # no /proc to look into
            return [Process(pid=self._group, parent=0, group=self._group, alive=True)]
        return [process for process in found if process.alive]

    def _group_exists(self) -> bool:
        try:
            os.killpg(self._group, 0)
        except (ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            return False
        return True

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, number)


def describe(status: int) -> str:
    """Say how a process ended: `exit status 3`, or `killed by SIGSEGV`."""
    return f"killed by {_signals.name(-status)}" if status < 0 else f"exit status {status}"


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _say(exc: Exception, name: str) -> str:
    if isinstance(exc, FileNotFoundError):
        return f"command not found: {name}"
    if isinstance(exc, PermissionError):
        return f"the command may not be executed: {name} (is it a program, and is it chmod +x?)"
    return f"the command can't be started: {name}: {getattr(exc, 'strerror', None) or exc}"
