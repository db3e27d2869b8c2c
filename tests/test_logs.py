"""Requests at the health endpoint stay out of the access logs of real servers."""

from __future__ import annotations

import logging
import logging.config
import sys
import threading
import urllib.error
import urllib.request
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from django.core.servers.basehttp import WSGIRequestHandler, WSGIServer
from werkzeug.serving import make_server

from healthmw.logs import IgnoreHealthChecks
from tests.programs import ROOT
from tests.servers.boot import Server, eventually
from tests.waiting import until_sync

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import logging
from healthmw import Health
from healthmw.{interface} import HealthMiddleware
from healthmw.logs import IgnoreHealthChecks

logging.getLogger("{logger}").addFilter(IgnoreHealthChecks())
health = Health()
health.add("database", lambda: None)

def wsgi(environ, start_response):
    start_response("404 Not Found", [("Content-Length", "0")])
    return [b""]

async def asgi(scope, receive, send):
    await send({{"type": "http.response.start", "status": 404, "headers": []}})
    await send({{"type": "http.response.body", "body": b""}})

app = HealthMiddleware({interface}, health)
"""

SERVERS = {
    "uvicorn": ("asgi", "uvicorn.access", "uvicorn --port 0 --lifespan off app:app"),
    "gunicorn": ("wsgi", "gunicorn.access", "gunicorn -b 127.0.0.1:0 --access-logfile - app:app"),
    "gunicorn terse": (
        "wsgi",
        "gunicorn.access",
        "gunicorn -b 127.0.0.1:0 --access-logfile - --access-logformat %(U)s app:app",
    ),
    "hypercorn": (
        "asgi",
        "hypercorn.access",
        "hypercorn -b 127.0.0.1:0 -w 0 --access-logfile - app:app",
    ),
}


@pytest.mark.parametrize("name", SERVERS)
def test_the_access_log_tells_of_everything_else(name: str, tmp_path: Path) -> None:
    interface, logger, words = SERVERS[name]
    (tmp_path / "app.py").write_text(APP.format(interface=interface, logger=logger))
    command = [sys.executable, "-m", *words.split()]
    environ = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with Server(command, tmp_path, up="/health_check?first", **environ) as server:
        assert server.get("/health_check").body == b"OKAY"
        assert server.get("/health_check/live?verbose").status == 200
        assert server.get("/health_checks").status == 404
        assert server.get("/last").status == 404
        eventually(lambda: "/last" in server.tail(), server.tail)
        assert "/health_checks" in server.tail()
        assert "/health_check?" not in server.tail()
        assert "/health_check " not in server.tail()
        assert "/health_check/" not in server.tail()


def app(environ: Any, start_response: Any) -> list[bytes]:
    failing = environ["PATH_INFO"] == "/up"  # Werkzeug writes that in colour
    status = "503 Service Unavailable" if failing else "200 OK"
    start_response(status, [("Content-Length", "2")])
    return [b"ok"]


@pytest.mark.parametrize("name", ["django.server", "werkzeug"])
def test_the_servers_of_developers_too(name: str, caplog: pytest.LogCaptureFixture) -> None:
    server: Any
    if name == "werkzeug":
        server = make_server("127.0.0.1", 0, app)
    else:
        server = WSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
        server.set_app(app)
    ours = IgnoreHealthChecks(path=["/up", "/api/up/"])
    logger = logging.getLogger(name)
    logger.addFilter(ours)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with caplog.at_level(logging.INFO, name):
            for path in ("/up", "/api/up/live", "/upper", "/last"):
                url = f"http://127.0.0.1:{server.server_port}{path}"
                try:
                    answer = urllib.request.urlopen(url, timeout=20)
                except urllib.error.HTTPError as exc:
                    answer = exc
                with closing(answer):
                    assert answer.status == (503 if path == "/up" else 200)
            until_sync(lambda: "/last" in caplog.text)
    finally:
        logger.removeFilter(ours)
        server.shutdown()
        thread.join()
        server.server_close()
    lines = [record.getMessage() for record in caplog.records if record.name == name]
    told = [word for line in lines for word in line.split() if word.startswith("/")]
    assert told == ["/upper", "/last"]


def test_it_is_configured_as_any_filter() -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"no_health": {"()": "healthmw.logs.IgnoreHealthChecks", "path": "/up"}},
            "loggers": {"shop.access": {"filters": ["no_health"]}},
        }
    )
    logger = logging.getLogger("shop.access")

    def passes(message: str, *args: Any) -> bool:
        record = logger.makeRecord("shop.access", logging.INFO, "", 0, message, args, None)
        return bool(logger.filter(record))

    assert not passes('%s - "%s %s HTTP/%s" %d', "10.0.0.5:1", "GET", "/up?verbose", "1.1", 503)
    assert not passes("HEAD /up/live HTTP/2 200")
    assert passes("POST /up HTTP/1.1 405")
    assert passes("GET /update HTTP/1.1 200")
    assert passes("starting up at /up")
    assert passes("%(who)s", {"who": "nobody"})


def test_on_a_handler_it_leaves_a_record_that_can_not_be_written_to_that(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Logging itself says on stderr what is wrong, and the app goes on."""
    handler = logging.StreamHandler()
    handler.addFilter(IgnoreHealthChecks())
    handler.handle(logging.makeLogRecord({"msg": "%s of %s orders", "args": (1,)}))
    assert "Message: '%s of %s orders'" in capsys.readouterr().err


def test_a_long_path_takes_no_longer_than_its_length() -> None:
    """A client writes it. What was tried over and over again took half an hour for this one."""
    path = "/" + 1_000_000 * "a"
    record = logging.makeLogRecord({"msg": f'"GET {path}" 404'})
    assert IgnoreHealthChecks().filter(record)


@pytest.mark.parametrize("path", ["up", "", "/", ["/up", "x"], []])
def test_a_path_is_a_path(path: Any) -> None:
    with pytest.raises(ValueError, match="path="):
        IgnoreHealthChecks(path)
