"""The shop behind the balancers: a page needs the database, and tells which instance it is of."""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from healthmw import DependencyUnavailable, Health
from healthmw.asgi import HealthMiddleware
from healthmw.probes import SQLAlchemyProbe

NAME = os.environ["NAME"]
engine = create_async_engine(os.environ["DATABASE_URL"], pool_pre_ping=True)
health = Health(release=NAME, max_age=0.1)
health.add("database", SQLAlchemyProbe(engine, timeout=15), timeout=15)


async def shop(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await engine.dispose()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/drain":
        health.drain()
    try:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
    except (OSError, sa.exc.SQLAlchemyError) as exc:
        raise DependencyUnavailable("database", 1.0) from exc
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": NAME.encode()})


app = HealthMiddleware(shop, health, drain_delay=float(os.environ["DRAIN_DELAY"]))
