"""What a type checker must make of the side server, aiohttp, Flask and logs. Never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from aiohttp import web

from healthmw import Health
from healthmw.aiohttp import setup
from healthmw.flask import require
from healthmw.logs import IgnoreHealthChecks
from healthmw.side import SideServer

health = Health()
server = health.serve(port=8081, stalled_after=30)
assert_type(server, SideServer)
assert_type(server.port, int | None)
server.beat()
health.serve(unix_socket=Path("health.sock"))
health.serve(8081)  # type: ignore[call-arg]
health.serve(port="8081")  # type: ignore[arg-type]
setup(web.Application(), health, path="/up")
setup(web.Application(), health, pth="/up")  # type: ignore[call-arg]
IgnoreHealthChecks(["/up", "/api/up"])
IgnoreHealthChecks(1)  # type: ignore[arg-type]


@require("payments")
def view(number: int) -> str:
    return str(number)


assert_type(view(1), str)
view("1")  # type: ignore[arg-type]
require(health)  # type: ignore[arg-type]
