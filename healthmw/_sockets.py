"""Connecting by drivers that don't bound it as a whole: over a socket that can be shut down."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Watch = Callable[[int], None]


def connect_pymysql(
    connect: Callable[..., Any], options: Mapping[str, Any], seconds: float, watch: Watch
) -> Any:
    """Return what PyMySQL's `connect` makes of `options`, over a socket given to `watch`.

    PyMySQL's own limits count anew with each byte that arrives.
    """
    connection = connect(**{**options, "defer_connect": True})
    unix, source = connection.unix_socket, connection.bind_address
    sock = _open(connection.host, connection.port, seconds, unix, source and (source, 0))
    if unix:
        connection._secure = True  # noqa: SLF001 - as it does where it opens one itself
    _over(sock, watch, connection.connect)
    return connection


def connect_pg8000(
    connect: Callable[..., Any], options: Mapping[str, Any], seconds: float, watch: Watch
) -> Any:
    """Return what pg8000's `connect` makes of `options`, over a socket given to `watch`.

    pg8000's own limit counts anew with each byte, and a login that it cuts short leaves a socket.
    """
    host, port = options.get("host") or "localhost", int(options.get("port") or 5432)
    unix, source = options.get("unix_sock"), options.get("source_address")
    sock = _open(host, port, seconds, unix, source)
    others = {name: value for name, value in options.items() if name != "unix_sock"}
    connection = _over(sock, watch, lambda sock: connect(**others, sock=sock))
    connection._usock.settimeout(options.get("timeout"))  # noqa: SLF001 - as if it were its own
    return connection


class _Socket(socket.socket):
    """Knows the files that a driver has made of it."""

    def __init__(self, sock: socket.socket) -> None:
        seconds = sock.gettimeout()
        super().__init__(fileno=sock.detach())
        self.settimeout(seconds)
        self.files: list[Any] = []

    def makefile(self, *args: Any, **options: Any) -> Any:
        """Return a file, as `socket.socket` does."""
        self.files.append(super().makefile(*args, **options))
        return self.files[-1]

    def give_up(self) -> None:
        """Close it, and its files before, with whatever they have not sent."""
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)  # or what is unsent might be waited for
        for file in self.files:
            with suppress(OSError):  # left to the garbage collector, it would be told on stderr
                file.close()
        self.close()


def _over(sock: _Socket, watch: Watch, connect: Callable[[socket.socket], Any]) -> Any:
    try:
        watch(sock.fileno())
        connection = connect(sock)
    except BaseException:
        sock.give_up()
        raise
    # Socket and file would keep each other, and so stay open until the garbage collector comes:
    # drivers close the one, and let the other go.
    sock.files.clear()
    return connection


def _open(host: str, port: int, seconds: float, unix: str | None, source: Any) -> _Socket:
    if not unix:
        return _Socket(connected(host, port, seconds, source))
    return _Socket(_at(socket.AF_UNIX, unix, seconds, None))


def connected(host: str, port: int, seconds: float, source: Any = None) -> socket.socket:
    """Return a socket that is connected by TCP, in so many seconds for all addresses of the host.

    An address may take an equal part of the time that is left, so that one which is silent leaves
    time for the next. `socket.create_connection` takes all of the time anew for each.
    """
    until = time.monotonic() + seconds
    sock = _first(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), until, source)
    sock.settimeout(seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _first(found: Sequence[Any], until: float, source: Any) -> socket.socket:
    for number, (family, *_, address) in enumerate(found[:-1]):
        share = (until - time.monotonic()) / (len(found) - number)
        with suppress(OSError):
            return _at(family, address, share, source)
    family, *_, address = found[-1]
    return _at(family, address, until - time.monotonic(), source)


def _at(family: int, address: Any, seconds: float, source: Any) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.settimeout(max(0.001, seconds))
        if source:
            sock.bind(source)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock
