"""What speaks HTTP behind some rows, on uvicorn in a process of its own.

The password is in the file `password` of the working directory, and is read for each request.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

_HEALTH = {
    "cluster_name": "fault-table",
    "status": "green",
    "timed_out": False,
    "number_of_nodes": 1,
    "active_shards": 3,
    "unassigned_shards": 0,
    "number_of_pending_tasks": 0,
}
"""What Elasticsearch and OpenSearch answer to `/_cluster/health`, shortened."""


def password() -> str:
    """Return the password that is right at the moment."""
    return Path("password").read_text(encoding="utf-8")


async def respond(send: Any, status: int, body: bytes) -> None:
    """Send a whole response."""
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def welcome(scope: Any, _receive: Any, send: Any) -> None:
    """Say welcome to those who know the password."""
    await respond(send, 200 if _knows_password(scope) else 401, b"welcome")


async def cluster(scope: Any, _receive: Any, send: Any) -> None:
    """Stand in for a node of Elasticsearch, of which neither Debian nor PyPI has a server."""
    if not _knows_password(scope):
        await respond(send, 401, b'{"error": {"type": "security_exception"}, "status": 401}')
    elif scope["path"] != "/_cluster/health":
        await respond(send, 404, b'{"status": 404}')
    else:
        await respond(send, 200, json.dumps(_HEALTH).encode())


def _knows_password(scope: Any) -> bool:
    right = b"Basic " + base64.b64encode(f"app:{password()}".encode())
    return bool(dict(scope["headers"]).get(b"authorization") == right)
