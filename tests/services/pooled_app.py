"""A shop with a pool in each worker: what the test of headroom deploys, once as each generation."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from healthmw import Health
from healthmw.probes import HeadroomProbe, SQLAlchemyProbe
from healthmw.wsgi import HealthMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

engine = sa.create_engine(
    os.environ["DATABASE_URL"],
    pool_size=int(os.environ["POOL_SIZE"]),
    max_overflow=1,
    connect_args={"application_name": "web"},
)
health = Health(max_age=0)
health.add("database", SQLAlchemyProbe(engine, timeout=15), timeout=15)
health.add(
    "headroom",
    HeadroomProbe(engine, processes=int(os.environ["WEB_CONCURRENCY"]), timeout=15),
    groups=["release"],
    timeout=15,
)

_busy: list[sa.Connection] = []
_lock = threading.Lock()


def shop(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Be as busy as can be, if asked: every connection of the pool is in use from then on."""
    words = "hello"
    with _lock:
        if environ["PATH_INFO"] == "/rush" and not _busy:
            assert isinstance(engine.pool, sa.QueuePool)
            health.run_sync("database")  # as a load balancer has made it do long ago
            try:
                for _ in range(int(os.environ["POOL_SIZE"]) + 1):
                    _busy.append(engine.connect())  # noqa: PERF401 - the next may be refused
            except sa.exc.OperationalError as exc:
                words = f"refused: {exc.orig}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {words}".encode()]


app = HealthMiddleware(shop, health, authorize=lambda _: True)
