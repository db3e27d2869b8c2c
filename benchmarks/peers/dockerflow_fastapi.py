"""dockerflow for FastAPI, by ASGI."""

from dockerflow import checks as registry
from dockerflow.fastapi import router
from fastapi import FastAPI

from benchmarks._checks import KIND, checks


def _as_dockerflow_has_it(check):
    async def run():
        await check()
        return []

    def run_sync():
        check()
        return []

    return run if KIND == "async" else run_sync


asgi = FastAPI()
asgi.include_router(router)
for _name, _check in checks().items():
    registry.register(_as_dockerflow_has_it(_check), name=_name)
