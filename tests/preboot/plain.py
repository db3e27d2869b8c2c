"""What a server runs: the shop without healthmw."""

from __future__ import annotations

from tests.preboot.boot import boot
from tests.preboot.shop import Shop, charge

boot()
shop = Shop(charge)
wsgi, asgi = shop.wsgi, shop.asgi
