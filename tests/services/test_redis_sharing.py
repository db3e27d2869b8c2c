"""However many ask at once, Redis sees one connection of a process's probe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.services.redis_servers import connected

if TYPE_CHECKING:
    from tests.services.servers import Redis

ROOT = Path(__file__).parents[2]

# A process of its own: two rounds of 500 requests at once, each asking anew; then it waits.
ASK = """
import asyncio, os, sys
from concurrent.futures import ThreadPoolExecutor
import redis, redis.asyncio
from healthmw import Health
from healthmw.asgi import HealthMiddleware
from healthmw.probes import RedisProbe
from healthmw.wsgi import HealthMiddleware as WSGIHealthMiddleware
from tests.transports import ask_asgi, ask_wsgi

interface, kind = sys.argv[1:]
library = {"sync": redis, "async": redis.asyncio}[kind]
health = Health(max_age=0, deadline=60)
probe = RedisProbe(library.Redis.from_url(os.environ["DSN"]), timeout=50)
health.add("cache", probe, timeout=60)

def done(answers):
    print(sum(answer.body == b"OKAY" for answer in answers), flush=True)
    sys.stdin.readline()

async def asgi():
    async with health:
        app = HealthMiddleware(None, health)
        for _ in range(2):
            asked = (ask_asgi(app, path="/health_check") for _ in range(500))
            done(await asyncio.gather(*asked))

def wsgi():
    app = WSGIHealthMiddleware(None, health)
    with ThreadPoolExecutor(500) as pool:
        for _ in range(2):
            asked = [pool.submit(ask_wsgi, app, path="/health_check") for _ in range(500)]
            done([one.result() for one in asked])

asyncio.run(asgi()) if interface == "asgi" else wsgi()
"""


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_500_requests_at_once(interface: str, kind: str, redis_server: Redis) -> None:
    with connected(redis_server) as client:
        before = int(client.info("stats")["total_connections_received"])
        assert len(client.client_list()) == 1
        asking = subprocess.Popen(
            [sys.executable, "-W", "ignore::ResourceWarning", "-c", ASK, interface, kind],
            env={**os.environ, "DSN": redis_server.dsn(), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert asking.stdin is not None
            assert asking.stdout is not None
            for _ in range(2):
                assert asking.stdout.readline() == "500\n"
                assert len(client.client_list()) == 2  # the probe's, and this one
                asking.stdin.write("\n")
                asking.stdin.flush()
            assert asking.wait(60) == 0
        finally:
            asking.kill()
            asking.communicate()
        # And in all that time no other came and went.
        assert int(client.info("stats")["total_connections_received"]) == before + 1
