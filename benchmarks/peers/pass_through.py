"""Measures one peer's middleware where it is installed, beside the wrapper by hand.

    python -m benchmarks.peers.pass_through WHICH ROUNDS

The middleware of a framework is measured inside of it: with it less without it.
"""

import asyncio
import json
import sys

from benchmarks._in_process import (
    AsgiByHand,
    WsgiByHand,
    asgi_app,
    serve_asgi,
    serve_wsgi,
    wsgi_app,
)
from benchmarks._measure import nanoseconds, take_turns

TIMES = 500


def on_a_loop(app):
    """Serve an ASGI app that waits, and so needs an event loop."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/orders/7",
        "raw_path": b"/orders/7",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"10.0.0.5")],
    }
    loop = asyncio.new_event_loop()

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        pass

    async def requests(times):
        for _ in range(times):
            await app(dict(scope), receive, send)

    return lambda times: loop.run_until_complete(requests(times))


def starlette():
    from starlette.middleware.base import BaseHTTPMiddleware

    async def hand_on(request, call_next):
        return await call_next(request)

    wrapped = BaseHTTPMiddleware(asgi_app, dispatch=hand_on)
    about = "Starlette's BaseHTTPMiddleware, which does nothing"
    return about, on_a_loop(asgi_app), on_a_loop(wrapped)


def watch():
    from fastapi_watch import RequestMetricsMiddleware

    return (
        "RequestMetricsMiddleware",
        serve_asgi(asgi_app, "/orders/7"),
        serve_asgi(RequestMetricsMiddleware(asgi_app), "/orders/7"),
    )


def fastapi():
    import fastapi
    from dockerflow.fastapi.middleware import RequestIdMiddleware

    app = fastapi.FastAPI()

    async def with_app(scope, receive, send):
        await asgi_app({**scope, "app": app}, receive, send)

    wrapped = RequestIdMiddleware(asgi_app)

    async def wrapped_with_app(scope, receive, send):
        await wrapped({**scope, "app": app}, receive, send)

    return (
        "FastAPI, RequestIdMiddleware",
        serve_asgi(with_app, "/orders/7"),
        serve_asgi(wrapped_with_app, "/orders/7"),
    )


def flask():
    from dockerflow.flask import Dockerflow
    from flask import Flask

    apps = []
    for extend in (None, Dockerflow):
        app = Flask(__name__)
        app.add_url_rule("/orders/7", "order", lambda: "hello")
        if extend is not None:
            extend(app)
        apps.append(_with_environ(app))
    return ("Flask", *apps)


def django():
    from benchmarks.peers import _django

    _django.set_up("benchmarks.peers._django_urls", "dockerflow.django")
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler

    alone = WSGIHandler()
    settings.MIDDLEWARE = ["dockerflow.django.middleware.DockerflowMiddleware"]
    return "Django", _with_environ(alone), _with_environ(WSGIHandler())


def _with_environ(app):
    """Serve a WSGI app of a framework, which looks at more of the environ."""
    from io import BytesIO
    from wsgiref.util import setup_testing_defaults

    environ = {"PATH_INFO": "/orders/7", "wsgi.input": BytesIO()}
    setup_testing_defaults(environ)

    def start_response(status, headers, exc_info=None):
        pass

    def run(times):
        for _ in range(times):
            body = app(dict(environ), start_response)
            b"".join(body)
            if hasattr(body, "close"):
                body.close()

    return run


def main(which, rounds):
    about, without, with_it = globals()[which]()
    if which in {"flask", "django"}:
        bare, hand = serve_wsgi(wsgi_app, "/x"), serve_wsgi(WsgiByHand(wsgi_app, "/h"), "/x")
    else:
        bare, hand = serve_asgi(asgi_app, "/x"), serve_asgi(AsgiByHand(asgi_app, "/h"), "/x")
    runs = {"bare": bare, "hand": hand, "without": without, "with": with_it}
    samples = take_turns(
        {name: nanoseconds(run, TIMES) for name, run in runs.items()}, rounds=int(rounds)
    )
    added = samples.added("with", "without")
    row = {
        "about": about,
        "ns a request": samples.median("with"),
        "ns added": added,
        "added, beside by hand": added / samples.added("hand", "bare"),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(*sys.argv[1:])
