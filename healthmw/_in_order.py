"""News handed on in order and one at a time, by whoever has some, and never under a lock."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from healthmw._native import Lock

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class InOrder(Generic[T]):
    """What is put into `waiting` is handed on in that order.

    Several threads may have news at once. Whoever finds nobody at it does it for all, so that whom
    it is handed to needs no lock. What that raises goes to who does it for all; the rest waits for
    the next who has news.
    """

    __slots__ = ("_at_it", "waiting")

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Renew the lock: in the child, the thread that held it does not exist.

        What was waiting is the parent's news, and the parent tells it.
        """
        self.waiting: deque[T] = deque()
        self._at_it = Lock()

    def hand_on(self, tell: Callable[[T], object]) -> None:
        """Give `tell` what waits, unless another thread (or a caller of this one) is at it."""
        # Asked again after the release: what was put just before it found somebody at work.
        while self.waiting and self._at_it.acquire(blocking=False):
            try:
                while self.waiting:
                    tell(self.waiting.popleft())
            finally:
                self._at_it.release()
