"""What a server runs: the shop with healthmw."""

from __future__ import annotations

import os

from healthmw.asgi import HealthMiddleware as ASGIHealthMiddleware
from healthmw.wsgi import HealthMiddleware as WSGIHealthMiddleware
from tests.preboot.boot import boot
from tests.preboot.checks import health, payments
from tests.preboot.shop import Shop, charge, queue

boot()
shop = Shop(payments.guard(fallback=queue)(charge))
drain_delay = float(os.environ["DRAIN_DELAY"])

if os.environ["INTERFACE"] == "wsgi":
    wsgi = WSGIHealthMiddleware(shop.wsgi, health, drain_delay=drain_delay)
else:
    asgi = ASGIHealthMiddleware(
        shop.asgi,
        health,
        drain_delay=drain_delay,
        startup_timeout=float(os.environ["BOOT_LIMIT"]),
    )
