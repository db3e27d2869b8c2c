"""The WSGI app of the server matrix; run as a program, a development server of Werkzeug's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from healthmw.wsgi import HealthMiddleware
from tests.servers.matrix_checks import hello, make

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment


def app_itself(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = hello()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


app = application = HealthMiddleware(app_itself, make())

if __name__ == "__main__":
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", int(sys.argv[1]), app, use_reloader=True, threaded=True)
