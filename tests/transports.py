"""A strict server for each interface, in process: one request in, one answer out.

Each holds the app to the letter of its specification, so that an answer which a lenient server
would let pass is an error here.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import anyio

from healthmw import asgi, wsgi
from tests.leaks import WATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping
    from types import TracebackType
    from wsgiref.types import WSGIApplication

    from healthmw import Health

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __post_init__(self) -> None:
        WATCH.see("an answer", f"{self.headers} {self.body!r}")

    def __getitem__(self, name: str) -> str:
        """Return the one header of this name."""
        (value,) = (v for k, v in self.headers if k == name)
        return value

    def __contains__(self, name: str) -> bool:
        return any(k == name for k, _ in self.headers)


NO_HEADERS: Mapping[str, str] = MappingProxyType({})

# ASGI


def http_scope(
    method: str = "GET",
    path: str = "/",
    *,
    query: str = "",
    root_path: str = "",
    host: str = "app",
    headers: Mapping[str, str] = NO_HEADERS,
    peer: str = "127.0.0.1",
) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": root_path,
        "headers": [
            (b"host", host.encode()),
            *((k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()),
        ],
        "client": (peer, 50000) if peer else None,
        "server": ("127.0.0.1", 80),
    }


class AsgiExchange:
    """The server's end of one HTTP exchange."""

    def __init__(self) -> None:
        self.messages: list[MutableMapping[str, Any]] = []
        self._received = False

    async def receive(self) -> dict[str, Any]:
        if self._received:
            await anyio.sleep_forever()  # until the client goes away, which it does not
        self._received = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if not self.messages:
            assert message["type"] == "http.response.start", message
            assert type(message["status"]) is int
            for name, value in message["headers"]:
                assert isinstance(name, bytes)
                assert isinstance(value, bytes)
        else:
            assert message["type"] == "http.response.body", "a response begins once"
            assert not self.complete, "nothing follows the end of a response"
        self.messages.append(message)
        await anyio.lowlevel.checkpoint()  # as a server does that waits for the socket to drain

    @property
    def complete(self) -> bool:
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)

    def answer(self) -> Answer:
        assert self.complete, "the response was not ended"
        start, *rest = self.messages
        return Answer(
            status=start["status"],
            headers=tuple((k.decode().lower(), v.decode()) for k, v in start["headers"]),
            body=b"".join(message.get("body", b"") for message in rest),
        )


async def ask_asgi(app: asgi.ASGIApp, method: str = "GET", path: str = "/", **scope: Any) -> Answer:
    exchange = AsgiExchange()
    await app(http_scope(method, path, **scope), exchange.receive, exchange.send)
    return exchange.answer()


# WSGI


def environ_for(
    method: str = "GET",
    path: str = "/",
    *,
    query: str = "",
    root_path: str = "",
    host: str = "app",
    headers: Mapping[str, str] = NO_HEADERS,
    peer: str = "127.0.0.1",
) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": root_path,
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": query,
        "HTTP_HOST": host,
        "REMOTE_ADDR": peer,
        "wsgi.input": io.BytesIO(),
    }
    environ |= {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in headers.items()}
    setup_testing_defaults(environ)
    return environ


class WsgiExchange:
    """The server's end of one exchange, after PEP 3333's own example."""

    def __init__(self) -> None:
        self._status = ""
        self._headers: list[tuple[str, str]] | None = None
        self._sent = False
        self.chunks: list[bytes] = []

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ExcInfo | tuple[None, None, None] | None = None,
    ) -> Callable[[bytes], object]:
        if exc_info is not None and exc_info[1] is not None:
            if self._sent:
                raise exc_info[1].with_traceback(exc_info[2])
        else:
            assert self._headers is None, "a response begins once"
        self._status, self._headers = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        assert self._headers is not None, "start_response() comes first"
        if data:
            self._sent = True
            self.chunks.append(data)

    def serve(self, app: WSGIApplication, environ: dict[str, Any]) -> Answer:
        body: Iterable[bytes] = app(environ, self.start_response)
        try:
            for chunk in body:
                self.write(chunk)
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        return self.answer()

    def answer(self) -> Answer:
        assert self._headers is not None, "the app never called start_response()"
        code, _, phrase = self._status.partition(" ")
        assert phrase
        return Answer(
            status=int(code),
            headers=tuple((k.lower(), v) for k, v in self._headers),
            body=b"".join(self.chunks),
        )


def ask_wsgi(app: WSGIApplication, method: str = "GET", path: str = "/", **scope: Any) -> Answer:
    return WsgiExchange().serve(validator(app), environ_for(method, path, **scope))


# Both


class Transport:
    """One of the two interfaces, as far as the endpoint looks the same through both."""

    def __init__(self, interface: str, backend: str = "") -> None:
        self._interface = interface
        self._backend = backend

    def middleware(self, health: Health, **options: Any) -> Any:
        """Return the middleware around an app that answers 418 to everything."""
        if self._interface == "asgi":
            return asgi.HealthMiddleware(_teapot_asgi, health, **options)
        return wsgi.HealthMiddleware(_teapot_wsgi, health, **options)

    def app(self, health: Health, **options: Any) -> Any:
        """Return the endpoint as an app."""
        module = asgi if self._interface == "asgi" else wsgi
        return module.HealthApp(health, **options)

    def ask(
        self, app: Any, path: str = "/health_check", method: str = "GET", **scope: Any
    ) -> Answer:
        """Return the answer to one request. `root_path` is where the app is mounted."""
        if self._interface == "wsgi":
            return ask_wsgi(app, method, path, **scope)

        async def main() -> Answer:
            # `path` has `root_path` at its beginning, says the ASGI specification.
            return await ask_asgi(app, method, scope.get("root_path", "") + path, **scope)

        return anyio.run(main, backend=self._backend)


async def _teapot_asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"short and stout"})


def _teapot_wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("418 I'm a Teapot", [("Content-Type", "text/plain")])
    return [b"short and stout"]


TRANSPORTS = {
    "asgi": Transport("asgi", "asyncio"),
    "asgi+trio": Transport("asgi", "trio"),
    "wsgi": Transport("wsgi"),
}
