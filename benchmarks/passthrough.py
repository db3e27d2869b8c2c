"""What the middleware adds to a request that is none of its business, in process.

Beside nothing at all, and beside the least that anyone could write by hand for the same path; the
peers, those that are a middleware, in environments of their own, beside the same two in there.

    python -m benchmarks.passthrough [--json FILE]
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks._in_process import (
    AsgiByHand,
    AsgiByHandNoting,
    WsgiByHand,
    asgi_app,
    serve_asgi,
    serve_wsgi,
    wsgi_app,
)
from benchmarks._measure import CONTROL, Results, nanoseconds, take_turns
from benchmarks._peers import ROOT, label, python_of
from healthmw import Health, asgi, wsgi

TIMES = 2_000
BARE, BY_HAND, OURS = "the app alone", "a wrapper by hand", "healthmw"
NOTING = "by hand, and it knows whether the response has begun"
PATH = "/health_check"
PEERS = {
    "ASGI": [("fastapi-watch", "watch"), ("dockerflow", "fastapi")],
    "WSGI": [("dockerflow", "flask"), ("dockerflow", "django")],
}


def well() -> None:
    """Pass."""


def of_peer(peer: str, which: str, rounds: int) -> dict[str, Any] | None:
    """Return the row of a peer, which measures itself where it is installed."""
    python = python_of(peer)
    if python is None:
        return None
    command = [python, "-W", "ignore", "-m", "benchmarks.peers.pass_through", which, str(rounds)]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return {"": f"{label(peer)}, {row.pop('about')}", **row}


def main() -> None:
    results = Results("Measure what the middleware adds to other requests.")
    rounds = results.rounds(301)
    health = Health()
    health.add("database", well)
    interfaces: dict[str, tuple[Any, dict[str, Any]]] = {
        "ASGI": (
            serve_asgi,
            {
                BARE: asgi_app,
                BY_HAND: AsgiByHand(asgi_app, PATH),
                NOTING: AsgiByHandNoting(asgi_app, PATH),
                OURS: asgi.HealthMiddleware(asgi_app, health),
            },
        ),
        "WSGI": (
            serve_wsgi,
            {
                BARE: wsgi_app,
                BY_HAND: WsgiByHand(wsgi_app, PATH),
                OURS: wsgi.HealthMiddleware(wsgi_app, health),
            },
        ),
    }
    for interface, (serve, apps) in interfaces.items():
        candidates = {
            name: nanoseconds(serve(app, "/orders/7"), TIMES) for name, app in apps.items()
        }
        samples = take_turns(candidates, rounds=rounds)
        by_hand = samples.added(BY_HAND, BARE)
        rows = []
        for name in (BARE, CONTROL, *list(apps)[1:]):
            added = None if name == BARE else samples.added(name, BARE)
            rows.append(
                {
                    "": name,
                    "ns a request": samples.median(name),
                    "ns added": added,
                    "added, beside by hand": None if added is None else added / by_hand,
                }
            )
        if interface == "ASGI":
            rows.append(through_starlette(rounds))
        for peer, which in PEERS[interface]:
            row = of_peer(peer, which, max(rounds // 5, 3))
            if row is not None:
                rows.append(row)
        results.table(f"{interface}: a request that passes through", rows)
    results.finish()


def through_starlette(rounds: int) -> dict[str, Any]:
    """Return the row of Starlette's own base class, which needs an event loop to be measured on."""
    command = [sys.executable, "-m", "benchmarks.peers.pass_through", "starlette"]
    ran = subprocess.run(
        [*command, str(max(rounds // 5, 3))], cwd=ROOT, check=True, capture_output=True, text=True
    )
    row: dict[str, Any] = json.loads(ran.stdout)
    return {"": row.pop("about"), **row}


if __name__ == "__main__":
    main()
