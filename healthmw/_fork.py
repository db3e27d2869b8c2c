"""What follows a fork, in the child: locks are renewed, and threads forgotten that are not there.

Python tells of a fork where it has made it. uWSGI makes its own without a word, so where a request
for the endpoint comes in, and where a probe is to be run in the background, `notice()` looks
whether this is still the same process.
"""

from __future__ import annotations

import logging
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from healthmw._scrub import log_exception, outlived

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

_log = logging.getLogger("healthmw")


class _Forks:
    def __init__(self) -> None:
        self._pid = os.getpid()
        self._calls: list[Callable[[], None]] = []

    def in_child(self, call: Callable[[], None]) -> None:
        """Call `call` in each child, after those that came before."""
        self._calls.append(call)

    def happened(self) -> None:
        self._pid = os.getpid()
        each(self._calls)

    def notice(self) -> None:
        """Do what is due, if this is a child and nobody has said so."""
        if os.getpid() != self._pid:
            self.happened()


def each(calls: Iterable[Callable[[], object]]) -> None:
    """Call each, also after one that raised: what it leaves undone must not spoil the others."""
    for call in calls:
        try:
            call()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the others come first
            with outlived():
                log_exception(_log, exc, "in a child process, healthmw could not begin anew")


_forks = _Forks()
in_child = _forks.in_child
notice = _forks.notice


def each_in_child(renew: Callable[[T], object]) -> weakref.WeakSet[T]:
    """Return a set: in each child `renew` is called with all that are in it and still alive."""
    known: weakref.WeakSet[T] = weakref.WeakSet()

    def renew_all() -> None:
        each(partial(renew, one) for one in known)

    in_child(renew_all)
    return known


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has none, and no fork either
    os.register_at_fork(after_in_child=_forks.happened)
