"""fastapi-healthchecks, by ASGI."""

from fastapi import FastAPI
from fastapi_healthchecks.api.router import HealthcheckRouter, Probe
from fastapi_healthchecks.checks import Check, CheckResult

from benchmarks._checks import DSN, checks


class _Check(Check):
    def __init__(self, name, check):
        self._name, self._check = name, check

    async def __call__(self):
        await self._check()
        return CheckResult(name=self._name, passed=True)


if DSN:
    from fastapi_healthchecks.checks.postgres import PostgreSqlCheck

    CHECKS = [PostgreSqlCheck.from_url(DSN)]
else:
    CHECKS = [_Check(*item) for item in checks().items()]
asgi = FastAPI()
asgi.include_router(HealthcheckRouter(Probe(name="health_check", checks=CHECKS)))
