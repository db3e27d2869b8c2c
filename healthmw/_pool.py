"""The room in a pool of the app's: its numbers, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from healthmw._probe import Degraded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Pool

    from healthmw._probe import Outcome


@dataclass(frozen=True, slots=True)
class PoolRoom:
    """From which share of its limit on a pool counts as nearly used up."""

    degraded_at: float

    def __post_init__(self) -> None:
        if not 0 < self.degraded_at <= 1:
            raise ValueError(
                f"degraded_at must be a share above 0 and up to 1, not {self.degraded_at!r}"
            )

    def judge(self, numbers: Mapping[str, int]) -> Outcome:
        """Return `numbers`, `Degraded` when too many of `pool_limit` are `pool_in_use`.

        A pool without a limit can't be used up.
        """
        in_use, limit = numbers.get("pool_in_use", 0), numbers.get("pool_limit", 0)
        if not limit or in_use < self.degraded_at * limit:
            return numbers
        nearly = "" if in_use >= limit else "nearly "
        return Degraded(f"the app's pool is {nearly}exhausted: {in_use} of {limit} in use", numbers)


def sqlalchemy_numbers(pool: Pool) -> dict[str, int]:
    """Return the numbers of a pool of SQLAlchemy's that has a limit, else none."""
    from sqlalchemy.pool import QueuePool

    if not isinstance(pool, QueuePool):
        return {}
    overflow = pool._max_overflow  # noqa: SLF001 - SQLAlchemy shows it nowhere else
    if overflow < 0:
        return {}
    return {
        "pool_size": pool.size(),
        "pool_in_use": pool.checkedout(),
        "pool_overflow": max(0, pool.overflow()),
        "pool_limit": pool.size() + overflow,
    }
