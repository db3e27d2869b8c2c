"""The example app of the current folder, with a listener: served in place of its `app:create_app`.

Writes a line of JSON to the file $OBSERVED when the process starts, when the circuit of its
payments service opens or closes, and for each call of a customer's request to that service.
$OPEN_FOR, where it is set, is the breaker's first wait in seconds, in place of the default.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import healthmw

if TYPE_CHECKING:
    from healthmw._breaker_state import BreakerEvent


def _write(what: str, at: float) -> None:
    line = json.dumps({"pid": os.getpid(), "what": what, "at": at})
    with Path(os.environ["OBSERVED"]).open("a", encoding="utf-8") as file:
        file.write(line + "\n")  # in one piece, at the end: other processes write there, too


def _on_breaker_event(event: BreakerEvent) -> None:
    _write(event.new, event.at)


def _on_call(_request: object) -> None:
    _write("call", time.monotonic())


async def _on_async_call(request: object) -> None:
    _on_call(request)


def create_app() -> Any:
    open_for = os.environ.get("OPEN_FOR")
    options: dict[str, Any] = {} if open_for is None else {"open_for": float(open_for)}
    breaker = functools.partial(healthmw.CircuitBreaker, **options)
    with mock.patch.object(healthmw, "CircuitBreaker", breaker):
        shop: Any = importlib.import_module("app")
    app = shop.create_app()
    extensions = getattr(app, "extensions", None)  # Flask's
    payments = app.state.payments if extensions is None else extensions["payments"]
    payments.check.breaker.subscribe(_on_breaker_event, rejected=False)
    is_async = hasattr(payments.http, "aclose")
    # Only customers' requests use this client: the probe has one of its own.
    payments.http.event_hooks = {"request": [_on_async_call if is_async else _on_call]}
    _write("started", time.monotonic())
    return app
