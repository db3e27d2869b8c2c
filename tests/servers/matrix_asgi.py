"""The ASGI app of the server matrix: for asyncio and trio alike."""

from __future__ import annotations

from typing import Any

from healthmw.asgi import HealthMiddleware
from tests.servers.matrix_checks import hello, make


async def app_itself(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": hello()})


app = HealthMiddleware(app_itself, make())
