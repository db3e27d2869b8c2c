"""fastapi-watch, by ASGI; its middleware counts requests."""

from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_watch import BaseProbe, HealthRegistry
from fastapi_watch.models import ProbeResult, ProbeStatus

from benchmarks._checks import HANGS, MAX_AGE, checks


class _Probe(BaseProbe):
    def __init__(self, name, check):
        self.name, self._check = name, check

    async def check(self):
        await self._check()
        return ProbeResult(name=self.name, status=ProbeStatus.HEALTHY)


@asynccontextmanager
async def _lifespan(app):
    registry.set_started()
    yield


asgi = FastAPI(lifespan=_lifespan)
_options = {} if MAX_AGE is None else {"poll_interval_ms": None}
if HANGS:
    _options["probe_timeout"] = 1.0
registry = HealthRegistry(asgi, **_options)
for _item in checks().items():
    registry.add(_Probe(*_item))
