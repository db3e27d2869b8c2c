"""Randomness of healthmw's own, for jitter.

Not the `random` module's functions: an app that seeds them would see its numbers change with every
probe, and all of its processes would then try again in the same moment.
"""

from __future__ import annotations

from random import Random

from healthmw._fork import in_child

_own = Random()
in_child(_own.seed)

draw = _own.random
"""Return a number from 0 up to 1."""
