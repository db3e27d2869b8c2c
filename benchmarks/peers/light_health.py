"""light-health: its ASGI app, and nothing around it."""

from light_health.asgi.health import HealthASGIApp
from light_health.registry import AsyncHealthRegistry
from light_health.status import HealthCheckResult, HealthState

from benchmarks._checks import checks


def _as_light_health_has_it(check):
    async def run():
        await check()
        return HealthCheckResult(status=HealthState.UP)

    return run


registry = AsyncHealthRegistry()
for _name, _check in checks().items():
    registry.register_readiness(_name, _as_light_health_has_it(_check))
asgi = HealthASGIApp(registry)
