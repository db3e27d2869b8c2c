"""gunicorn: hooks for its configuration file."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio

from healthmw._drain import DRAINER
from healthmw._health import Health
from healthmw._options import seconds
from healthmw._startup import NotStartedError, wait_until_started

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("bind_gate", "post_worker_init")

_LOOK = 0.5  # seconds between two looks at whether gunicorn is still there
_GRACE = 3.0  # seconds over the time limit for the checks to say so, and for what they opened
_INTERRUPTED = 128 + signal.SIGINT  # as a shell has it


def bind_gate(target: str, *, timeout: float = 30.0) -> Callable[[Any], None]:
    """Return a hook `on_starting`: gunicorn opens its port only when the app is ready.

        # gunicorn.conf.py
        from healthmw.gunicorn import bind_gate

        on_starting = bind_gate("app:health", timeout=30)

    `target` names a `Health`: its module and attribute. Its group `startup` is run in a process of
    its own, so that nothing of the app is loaded before the workers are forked. Where it does not
    pass within `timeout` seconds, gunicorn ends with exit status 1.

    Raises `ValueError` for a target that is none.
    """
    seconds("timeout", timeout)
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise ValueError(f"target={target!r} must name module and attribute: 'app:health'")

    def on_starting(server: Any) -> None:
        # gunicorn has put the app's folders on its own path.
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", __name__, target, f"{timeout!r}", f"{os.getpid()}"]
        try:
            run = subprocess.run(  # noqa: S603 - the command is ours, its target the operator's
                command, env=environ, stdin=subprocess.DEVNULL, check=False
            )
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED)
        if run.returncode:
            server.log.critical("healthmw: %s is not ready, so no port is opened", target)
            sys.exit(1)

    return on_starting


def post_worker_init(worker: Any) -> None:  # noqa: ARG001 - gunicorn passes it
    """Make `drain_delay` work in this worker from the start: a hook, for `--preload`.

    Without `--preload` it does so by itself. With it, the app is made before the worker is, and the
    middleware finds out at the first request at its path; in a `gthread` worker not even then.
    """
    DRAINER.arm(again=True)


def _main(target: str, timeout: str, parent: str) -> int:
    """Wait until `target` is ready; return the exit status."""
    # gunicorn handles no signal yet at that time: one ends it, and would leave us behind.
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    module, _, attribute = target.partition(":")
    health = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    if not isinstance(health, Health):
        raise TypeError(f"{target} must be a Health, not {type(health).__name__}")

    async def wait() -> None:
        async with health:
            await wait_until_started(health, limit)
            late.cancel()

    limit = float(timeout)
    late = threading.Timer(limit + _GRACE, _give_up, (limit,))
    late.daemon = True
    late.start()
    try:
        anyio.run(wait)
    except NotStartedError as exc:
        sys.stderr.write(f"healthmw: {exc}\n")
        return 1
    return 0


def _give_up(limit: float) -> None:
    """End this process: its event loop has been blocked for so long that nothing else would."""
    sys.stderr.write(
        f"healthmw: not ready to start after {limit:g} s: a check blocks the event loop, or does"
        " not close\n"
    )
    os._exit(1)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


if __name__ == "__main__":
    try:
        sys.exit(_main(*sys.argv[1:]))
    except KeyboardInterrupt:  # Ctrl-C reaches gunicorn as well, which ends
        sys.exit(_INTERRUPTED)
