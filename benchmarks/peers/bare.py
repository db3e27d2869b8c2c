"""The limits: an app that only answers, and a single flight by hand that keeps no promise."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from benchmarks._checks import KIND, checks

HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "4")]
ALIKE = [*HEADERS, ("Cache-Control", "no-store"), ("Vary", "Accept"), ("Health-Status", "okay")]


def _asgi(headers):
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": raw})
            await send({"type": "http.response.body", "body": b"OKAY"})

    return app


def _wsgi(headers):
    def app(environ, start_response):
        start_response("200 OK", list(headers))
        return [b"OKAY"]

    return app


asgi, wsgi = _asgi(HEADERS), _wsgi(HEADERS)
alike_asgi, alike_wsgi = _asgi(ALIKE), _wsgi(ALIKE)


_checks = list(checks().values())
_threads = ThreadPoolExecutor(len(_checks))


async def _run_one(check):
    async with asyncio.timeout(2):
        if KIND == "async":
            await check()
        else:
            await asyncio.get_running_loop().run_in_executor(_threads, check)


async def _run_all():
    await asyncio.gather(*map(_run_one, _checks))


class _SharedAsgi:
    """Whoever asks while the checks run gets what that run finds out."""

    def __init__(self):
        self._run = None

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(_run_all())
        await asyncio.shield(self._run)
        await asgi(scope, receive, send)


class _SharedWsgi:
    """The same for threads, with a loop in a thread of its own."""

    def __init__(self):
        self._lock = threading.Lock()
        self._run: Future | None = None
        self._loop = None

    def __call__(self, environ, start_response):
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, daemon=True).start()
            if self._run is None or self._run.done():
                self._run = asyncio.run_coroutine_threadsafe(_run_all(), self._loop)
            run = self._run
        run.result(2)
        return wsgi(environ, start_response)


shared_asgi = _SharedAsgi()
shared_wsgi = _SharedWsgi()
