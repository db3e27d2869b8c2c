"""Every process that comes from this one, whatever it did to get away. Linux only.

A daemon leaves its process group and its session, and its parent ends. What it can't leave is its
ancestry: with PR_SET_CHILD_SUBREAPER (prctl(2)) the kernel hands orphans to us and not to init, so
all that we started can be found below us in /proc. Elsewhere than on Linux nothing is found, and
only the process group can be stopped.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_PROC = Path("/proc")


class Process(NamedTuple):
    """One process, as /proc/PID/stat has it."""

    pid: int
    parent: int
    group: int
    alive: bool
    """False for a zombie: ended, and not yet waited for."""


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Inside this context the orphans among our descendants become our children."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    before = ctypes.c_int()
    prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def descendants(*, spare: frozenset[int] = frozenset()) -> list[Process]:
    """Return all that descend from this process; of those in `spare`, neither they nor theirs."""
    children: dict[int, list[Process]] = {}
    for process in _processes():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    ask = [os.getpid()]
    while ask:
        for child in children.get(ask.pop(), ()):
            if child.pid not in spare:
                found.append(child)
                ask.append(child.pid)
    return found


def _processes() -> Iterator[Process]:
    try:
        names = os.listdir(_PROC)  # noqa: PTH208 - a Path for each of some hundred entries is slow
    except OSError:
        return  # no /proc: not Linux, or a bare chroot
    for name in names:
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended since the listing
                yield _parse((_PROC / name / "stat").read_text("utf-8", "replace"))


def _parse(stat: str) -> Process:
    # proc(5): pid (comm) state ppid pgrp ... num_threads is the 20th. comm may hold anything.
    pid, _, rest = stat.partition(" ")
    fields = rest[rest.rindex(")") + 2 :].split()
    # The state of a process is that of its first thread, which may end before the others do.
    alive = fields[0] not in "ZX" or int(fields[17]) > 1
    return Process(pid=int(pid), parent=int(fields[1]), group=int(fields[2]), alive=alive)
