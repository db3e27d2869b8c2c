"""A probe of a process that has no port: the age of a file that it touches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from healthmw._bounds import above
from healthmw._options import number, seconds
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from healthmw._model import Measurement
    from healthmw._probe import Degraded

_AHEAD = 5.0
"""File systems and clocks differ; a file from further in the future, in seconds, tells nothing."""


def beat(path: str | os.PathLike[str]) -> None:
    """Touch the heartbeat file `path`, made where it isn't there: in a worker's loop, say."""
    Path(path).touch()


class HeartbeatProbe:
    """Look at how long ago another process, a worker or a cron job, touched the file `path`.

    A pass proves that it did so within the last `max_age` seconds, by `beat()` or otherwise. With
    `degraded_above` (seconds) an age above that is degraded already. A missing file fails: nothing
    has beaten yet.

    Measures `age_seconds`. Raises `ProbeFailedError`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_age: float,
        *,
        degraded_above: float | None = None,
    ) -> None:
        seconds("max_age", max_age)
        if degraded_above is not None and number("degraded_above", degraded_above) > max_age:
            raise ValueError(f"degraded_above={degraded_above} is more than max_age={max_age}")
        self._path = Path(path)
        self._bounds = above(degraded_above, max_age)

    def __repr__(self) -> str:
        return f"<HeartbeatProbe {self._path}>"

    def __call__(self) -> Degraded | Mapping[str, Measurement]:
        """Look once."""
        try:
            age = time.time() - self._path.stat().st_mtime
        except FileNotFoundError:
            raise ProbeFailedError(f"{self._path} is not there: no heartbeat yet") from None
        if age < -_AHEAD:
            raise ProbeFailedError(f"the last heartbeat is {-age:.0f} s in the future")
        found = {"age_seconds": max(age, 0.0)}
        return self._bounds.judge(age, f"the last heartbeat was {age:.0f} s ago", found) or found
