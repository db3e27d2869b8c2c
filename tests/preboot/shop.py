"""The app that is deployed: pages that read a database, and one that calls another service."""

from __future__ import annotations

import asyncio
import http.client
import os
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

POOL_SIZE = int(os.environ["POOL_SIZE"])
PAYMENTS = os.environ["PAYMENTS_URL"]
SLOW = 1.0  # seconds

engine = sa.create_engine(
    os.environ["DATABASE_URL"],
    pool_size=POOL_SIZE,
    max_overflow=0,
    pool_timeout=60,
    connect_args={"application_name": "web"},
)
_FORMATS = os.environ["FORMATS"].split(",")
_QUERY = sa.text(f"SELECT {os.environ['COLUMN']}, format FROM customers")  # noqa: S608 - the release's own
_all_of_it = threading.Lock()


def charge() -> str:
    """Have the payment service take the money."""
    address = urlsplit(PAYMENTS)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    try:
        connection.request("GET", "/")
        return f"charged: {connection.getresponse().status}"
    finally:
        connection.close()


def queue() -> str:
    """Do without the payment service."""
    return "to be charged later"


def customers() -> str:
    """Read them, and use the whole pool for it: a page with that many queries at once."""
    with _all_of_it, ExitStack() as stack:
        connections = [stack.enter_context(engine.connect()) for _ in range(POOL_SIZE)]
        rows = connections[-1].execute(_QUERY).all()
    for _, written in rows:
        if written not in _FORMATS:
            raise ValueError(f"format {written} of a customer is unknown")
    return f"{len(rows)} customers"


class Shop:
    """The app, as WSGI and as ASGI. `pay` is what takes the money."""

    def __init__(self, pay: Callable[[], str]) -> None:
        self._pay = pay

    def page(self, path: str) -> tuple[str, bytes]:
        try:
            if path == "/pay":
                return "200 OK", self._pay().encode()
            if path == "/slow":
                time.sleep(SLOW)
            return "200 OK", customers().encode()
        except Exception as exc:  # noqa: BLE001 - as every framework does
            print(f"{path}: {type(exc).__name__}: {exc}", flush=True)
            return "500 Internal Server Error", b"sorry"

    def wsgi(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, body = self.page(environ["PATH_INFO"])
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        status, body = await asyncio.to_thread(self.page, scope["path"])
        headers = [(b"content-length", str(len(body)).encode())]
        code = int(status.split()[0])
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": body})
