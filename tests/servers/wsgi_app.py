"""A WSGI app for real servers: two routes of its own, and the endpoint around them."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

from healthmw.wsgi import HealthMiddleware
from tests.servers.checks import make

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

health = make()
if "RUN_AT_IMPORT" in os.environ:
    health.start()
    health.run_sync()  # as a careless app does, before the server forks


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    threads = sorted(thread.name for thread in threading.enumerate())
    body = json.dumps({"pid": os.getpid(), "threads": threads, "tasks": []}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK" if environ["PATH_INFO"] == "/hello" else "404 Not Found", headers)
    return [body]


app = HealthMiddleware(hello, health)
