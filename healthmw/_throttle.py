"""How often an address may show wrong credentials: a token bucket for each, of a bounded number."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from healthmw._fork import each_in_child
from healthmw._native import Lock

if TYPE_CHECKING:
    from collections.abc import Callable

_BURST = 10.0
"""So many at once."""

_EVERY = 6.0
"""And then one in so many seconds."""

_ADDRESSES = 1024


class Throttle:
    """Counts by address. The longest unseen is forgotten first. Guarded by its lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.after_fork()
        _throttles.add(self)

    def after_fork(self) -> None:
        """Begin anew: in the child, the thread that held the lock does not exist."""
        self._lock = Lock()
        # By address: how many were left, and when that was.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Return for how many seconds `address` is to be refused; 0.0 if it isn't."""
        if not self._left:
            return 0.0
        with self._lock:
            return max(1.0 - self._now_left(_network(address)), 0.0) * _EVERY

    def wrong(self, address: str) -> None:
        """Count one that was wrong."""
        network = _network(address)
        with self._lock:
            self._left[network] = (max(self._now_left(network) - 1.0, 0.0), self._clock())
            self._left.move_to_end(network)
            if len(self._left) > _ADDRESSES:
                self._left.popitem(last=False)

    def _now_left(self, network: str) -> float:
        left, when = self._left.get(network, (_BURST, 0.0))
        return min(left + (self._clock() - when) / _EVERY, _BURST)


_throttles = each_in_child(Throttle.after_fork)


def _network(address: str) -> str:
    """Return who `address` is for: of IPv6, where one host has many, its network of 64 bits."""
    try:
        return f"{int(IPv6Address(address.partition('%')[0])) >> 64:x}::"
    except ValueError:
        return address
