"""A WSGI app that is deployed: with the options of the middleware that matter then."""

from __future__ import annotations

import os

from healthmw.wsgi import HealthMiddleware
from tests.servers.deployed import options
from tests.servers.wsgi_app import health, hello

app = HealthMiddleware(hello, health, **options(os.environ))
