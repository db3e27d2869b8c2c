"""How hard the suite tries: `HEALTHMW_ABUSE=20` makes it twenty times the usual, at random.

As it is, it tries the same each time: what fails in CI fails on every machine.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EFFORT = float(os.environ.get("HEALTHMW_ABUSE", "1"))


def times(number: float) -> int:
    """Return `number`, or as many times more as is wanted."""
    return max(1, round(number * EFFORT))


def tries(examples: int, **options: object) -> settings:
    """Return Hypothesis's settings for so many examples, or as many times more as are wanted."""
    return settings(
        max_examples=times(examples),
        deadline=None,
        derandomize=EFFORT == 1,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        **options,  # type: ignore[arg-type]  # as Hypothesis has them
    )
