"""How many connections a deploy will need, and whether they fit. Pure: numbers in, a verdict out.

For each limit of the server, with `demand` as what this app can hold at the peak of a deploy::

    demand   = generations x instances x processes x (per_process + beside_pool)
    others   = in use now - this app's own, now
    forecast = max(in use now, others + demand + reserve)

The app's own connections of now are taken off because `demand` has them in it: they belong to the
old generation, which may open the rest of its own any moment. So the forecast doesn't depend on how
busy the app is while it is made. What others hold is counted as it is, and `reserve` is for what
they may open later. In use now is the least that the forecast can be, whatever the numbers say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from healthmw._probe import Degraded
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from healthmw._model import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit of a server and what counts towards it, in connections."""

    scope: str
    """What it holds for, in a word: `server`, `role`, `database` or `account`."""
    name: str
    """What it is called there, for the message."""
    allows: int
    """How many there may be for one more login like ours to succeed."""
    in_use: int
    ours: int
    """How many of those in use are this app's."""
    way_out: str
    """What raises it."""

    @property
    def others(self) -> int:
        """How many of those in use are not this app's."""
        return self.in_use - self.ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a release holds at most, and how many releases at once."""

    processes: int
    per_process: int
    instances: int = 1
    generations: int = 2
    beside_pool: int = 1
    reserve: int = 0
    spare: int = 0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            least = 0 if name in {"per_process", "beside_pool", "reserve", "spare"} else 1
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number, at least {least}, not {value!r}")

    @property
    def total(self) -> int:
        """The connections of all generations together."""
        each = self.per_process + self.beside_pool
        return self.generations * self.instances * self.processes * each

    def __str__(self) -> str:
        return (
            f"{self.total} of this app ({_of(self.generations, 'generation')} x"
            f" {_of(self.instances, 'instance')} x {_of(self.processes, 'process')} x"
            f" {self.per_process + self.beside_pool})"
        )


def forecast(limit: Limit, demand: Demand) -> int:
    """Return how many connections will count towards `limit` at the peak of the deploy."""
    return max(limit.in_use, limit.others + demand.total + demand.reserve)


def headroom(limit: Limit, demand: Demand) -> int:
    """Return how many connections are left over then; below 0 is how many are refused."""
    return limit.allows - forecast(limit, demand)


def judge(limits: Sequence[Limit], demand: Demand) -> Mapping[str, Measurement] | Degraded:
    """Return the numbers of the limit that binds; raise `ProbeFailedError` where it is too low."""
    binds = min(limits, key=lambda limit: headroom(limit, demand))
    left = headroom(binds, demand)
    numbers: dict[str, Measurement] = {
        "binding_limit": binds.name,
        "limit": binds.allows,
        "in_use": binds.in_use,
        "in_use_by_others": binds.others,
        "demand": demand.total,
        "forecast": forecast(binds, demand),
        "headroom": left,
        **{f"{limit.scope}_headroom": headroom(limit, demand) for limit in limits},
    }
    if left < 0:
        raise ProbeFailedError(
            f"{_told(binds, demand)}, {-left} too many: lower pool sizes, processes or instances,"
            f" put a pooler in between, or {binds.way_out}"
        )
    if left < demand.spare:
        return Degraded(f"{_told(binds, demand)}: {left} to spare, not {demand.spare}", numbers)
    return numbers


def _told(limit: Limit, demand: Demand) -> str:
    parts = [str(demand), f"{limit.others} of others now"]
    if demand.reserve:
        parts.append(f"{demand.reserve} in reserve")
    wanted = forecast(limit, demand)
    if wanted > limit.others + demand.total + demand.reserve:
        parts = [f"{limit.in_use} in use now, which is more than {demand}"]
    return f"{limit.name} allows {limit.allows} connections, and the forecast is {wanted}: " + (
        " + ".join(parts)
    )


def _of(number: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{number} {what}{plural if number != 1 else ''}"
