"""An ASGI app that is deployed: with the options of the middleware that matter then."""

from __future__ import annotations

import os

from healthmw.asgi import HealthMiddleware
from tests.servers.asgi_app import hello
from tests.servers.checks import make
from tests.servers.deployed import options

health = make()
app = HealthMiddleware(hello, health, **options(os.environ))
