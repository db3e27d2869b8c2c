"""fast-healthchecks for FastAPI, by ASGI."""

from fast_healthchecks.checks.function import FunctionHealthCheck
from fast_healthchecks.integrations.base import Probe
from fast_healthchecks.integrations.fastapi import HealthcheckRouter
from fastapi import FastAPI

from benchmarks._checks import DSN, HANGS, checks

if DSN:
    from fast_healthchecks.checks.postgresql.asyncpg import PostgreSQLAsyncPGHealthCheck

    CHECKS = [PostgreSQLAsyncPGHealthCheck.from_dsn(DSN, timeout=10)]
else:
    CHECKS = [
        FunctionHealthCheck(func=check, name=name, timeout=1 if HANGS else 2)
        for name, check in checks().items()
    ]
asgi = FastAPI()
asgi.include_router(HealthcheckRouter(Probe(name="readiness", checks=CHECKS)))
