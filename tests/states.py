"""A `Health` in each state that an answer may have to show, seeded with what must not be shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio

from healthmw import CircuitBreaker, Degraded, Health

if TYPE_CHECKING:
    from collections.abc import Callable

DETAIL = "private-detail-of-the-exception"
DEGRADED = "private-detail-of-the-degradation"
MEASURED = "private-measurement"
DESCRIPTION = "private-description-of-a-check"
PRIVATE = (DETAIL, DEGRADED, MEASURED, DESCRIPTION)
"""For `full` alone. Credentials are for nobody."""

PASSWORD = "hunter2-of-the-database"
URL = f"postgresql://app:{PASSWORD}@db.internal/shop"


def well() -> dict[str, Any]:
    time.sleep(0.001)
    return {"used_bytes": 1234, "server": MEASURED, "dsn": URL, "password": PASSWORD}


def weak() -> Degraded:
    return Degraded(f"{DEGRADED}: {URL}", {"lag_seconds": 1.5})


async def endless() -> None:
    await anyio.sleep_forever()


def broken() -> None:
    time.sleep(0.001)
    raise OSError(f"{DETAIL}: {URL}")


def healthy(**options: Any) -> Health:
    health = Health(release="v42", **{"max_age": 60, **options})
    health.add("database", well, description=f"{DESCRIPTION} <b>")
    health.add("cache", well, breaker=CircuitBreaker())
    return health


def degraded(**options: Any) -> Health:
    health = healthy(**options)
    health.add("queue", weak)
    health.add("mail", broken, critical=False)
    return health


def failing(**options: Any) -> Health:
    health = degraded(**options)
    health.add("search", broken, description=DESCRIPTION)
    return health


def open_circuit(**options: Any) -> Health:
    health = healthy(**options)
    breaker = CircuitBreaker(consecutive_failures=1, open_for=60)
    health.add("payments", broken, breaker=breaker, max_age=0)
    health.run_sync(fresh=True)
    return health


def unknown(**options: Any) -> Health:
    # The first run of a background check is waited for; this one never ends.
    health = healthy(**{"deadline": 0.1, **options})
    health.run_sync()
    health.add("search", endless, interval=3600, timeout=60)
    return health


def empty(**options: Any) -> Health:
    return Health(release="v42", **options)


def draining(**options: Any) -> Health:
    health = healthy(**options)
    health.drain()
    return health


STATES: dict[str, Callable[..., Health]] = {
    "okay": healthy,
    "degraded": degraded,
    "failing": failing,
    "open circuit": open_circuit,
    "unknown": unknown,
    "empty": empty,
    "draining": draining,
}
