"""The health of the shop, as its makers would write it down."""

from __future__ import annotations

import os

from healthmw import CircuitBreaker, Health
from healthmw.probes import AlembicProbe, HeadroomProbe, HTTPProbe, SQLAlchemyProbe
from tests.preboot.shop import PAYMENTS, engine

PATIENCE = 20.0  # seconds: the machine of the tests may be a busy one

health = Health(release=os.environ["APP_RELEASE"], deadline=PATIENCE)
health.add("database", SQLAlchemyProbe(engine, timeout=PATIENCE), timeout=PATIENCE)
payments = health.add(
    "payments",
    HTTPProbe(PAYMENTS, timeout=PATIENCE),
    critical=False,
    timeout=PATIENCE,
    breaker=CircuitBreaker(),
)
health.add(
    "migrations",
    AlembicProbe(engine, script_location=os.environ["REVISIONS"], timeout=PATIENCE),
    groups=["release"],
    timeout=PATIENCE,
)
health.add(
    "headroom",
    HeadroomProbe(engine, processes=1, timeout=PATIENCE),
    groups=["release"],
    timeout=PATIENCE,
)
