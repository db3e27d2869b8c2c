"""An ASGI app for real servers: two routes of its own, and the endpoint around them."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import Any

from healthmw.asgi import HealthMiddleware
from tests.servers.checks import make

health = make()


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    seen = {
        "pid": os.getpid(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tasks": sorted(str(task.get_coro()) for task in asyncio.all_tasks()),
    }
    found = scope["path"].endswith("/hello")
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


app = HealthMiddleware(hello, health)
