"""An ASGI and a WSGI app whose health looks at one database by every probe there is for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg_pool
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from healthmw import Health
from healthmw.asgi import HealthMiddleware as ASGIHealth
from healthmw.probes import (
    AsyncmyProbe,
    AsyncpgProbe,
    PsycopgProbe,
    PyMySQLProbe,
    SQLAlchemyProbe,
)
from healthmw.wsgi import HealthMiddleware as WSGIHealth

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

PATIENCE = 30.0


def probes(dsn: str) -> dict[str, Any]:
    """Return a probe of each kind, by its name."""
    if dsn.startswith("mysql"):
        engine = sa.create_engine(dsn.replace("mysql", "mysql+pymysql"))
        return {
            "asyncmy": AsyncmyProbe(dsn, timeout=PATIENCE),
            "pymysql": PyMySQLProbe(dsn, timeout=PATIENCE),
            "sqlalchemy": SQLAlchemyProbe(engine, timeout=PATIENCE),
        }
    scheme, _, rest = dsn.partition("://")
    by_asyncpg = create_async_engine(f"{scheme}+asyncpg://{rest}")
    by_psycopg = sa.create_engine(f"{scheme}+psycopg://{rest}")
    pool: psycopg_pool.ConnectionPool[Any] = psycopg_pool.ConnectionPool(dsn, open=False)
    return {
        "asyncpg": AsyncpgProbe(dsn, timeout=PATIENCE),
        "psycopg": PsycopgProbe(dsn, timeout=PATIENCE),
        "psycopg-in-threads": PsycopgProbe(pool, timeout=PATIENCE),
        "sqlalchemy": SQLAlchemyProbe(by_psycopg, timeout=PATIENCE),
        "sqlalchemy-async": SQLAlchemyProbe(by_asyncpg, timeout=PATIENCE),
    }


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [])
    return []


health = Health(max_age=0, deadline=PATIENCE)  # each request looks anew, or joins who is looking
if "DSN" in os.environ:
    for name, probe in probes(os.environ["DSN"]).items():
        health.add(name, probe, timeout=PATIENCE)
asgi = ASGIHealth(_asgi, health)
wsgi = WSGIHealth(_wsgi, health)
