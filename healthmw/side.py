"""The endpoint on a port of its own, for processes without a web app, and beside a web app.

`Health.serve()` makes the server. It is a few lines over asyncio's streams rather than a web
server of others: one request a connection, no request bodies, and bounds on all that a client can
make it wait for or keep. It shares neither thread nor event loop with the app, so that it answers
while the app hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from contextlib import contextmanager
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from healthmw._head import BadHeadError, read_head
from healthmw._http import Endpoint
from healthmw._native import Lock, get_ident, start_real_thread
from healthmw._options import WrongTypeError, seconds, text
from healthmw._portal import warm_up
from healthmw._request import Request, caller_of_scope, words_of_scope
from healthmw._response import Response, plain
from healthmw._scrub import log_exception, outlived
from healthmw._watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from healthmw._health import Health
    from healthmw.access import Authorizer

__all__ = ("SideServer",)

_HEAD_BYTES = 8192
_HEAD_SECONDS = 5.0
_SEND_SECONDS = 5.0
_CONNECTIONS = 256
_BACKLOG = 512
_CLOSING = 2.0
_TURNS = 5
"""So many turns of the loop take a new connection to the one who turns it away, and some more."""

_WATCH_NAME = "main_loop"

_logger = logging.getLogger("healthmw")


class SideServer:
    """Serves the endpoint of a `Health` from a daemon thread. `Health.serve()` makes it.

    It holds at most 256 connections: the one that has been silent longest makes room for the next.
    A client has 5 seconds to send its request, of 8 KiB at most, and as long to take the answer.

    In a child after `fork` nothing serves, for the port is the parent's; call `Health.serve()`
    there, with another port. Use as a context manager to close it.
    """

    def __init__(
        self,
        health: Health,
        *,
        port: int | None,
        host: str,
        unix_socket: str | os.PathLike[str] | None,
        path: str,
        show: str,
        authorize: Authorizer | Iterable[Authorizer] | None,
        stalled_after: float | None,
    ) -> None:
        self._endpoint = Endpoint(health, path, show=show, authorize=authorize)
        self._pid = os.getpid()
        self._closed = False
        if stalled_after is not None:
            seconds("stalled_after", stalled_after)
        self._file: Path | None = None
        if unix_socket is not None:
            if port is not None:
                raise ValueError("port and unix_socket: give one of them")
            self._file = _checked_file(unix_socket)
            self._socket = _listen_at(self._file)
        else:
            self._socket = _listen(_checked_host(host), _checked_port(port))
        self._inode = None if self._file is None else _inode(self._file)
        self._watch: Watch | None = None
        self._stop = asyncio.Event()
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        # Those that wait for their client, the longest first.
        self._idle: dict[asyncio.StreamWriter, None] = {}
        self._thread = 0
        self._ready, self._ended = Lock(), Lock()  # each is released once, by the thread
        self._ready.acquire()
        self._ended.acquire()
        self._begun = False
        self._failure: BaseException | None = None
        try:
            if stalled_after is not None:
                self._watch = _watch(health, stalled_after)
            self._start()
        except BaseException:
            self._withdraw()
            self._socket.close()
            raise

    def _start(self) -> None:
        start_real_thread(self._run, "healthmw-side")
        self._ready.acquire()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def port(self) -> int | None:
        """The port that it listens on; None for a UNIX socket, and once it is closed."""
        if not self.serving or self._file is not None:
            return None
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def serving(self) -> bool:
        """Whether it serves: not once it is closed or broken down, nor in a child after `fork`."""
        return not self._closed and self._failure is None and self._pid == os.getpid()

    def beat(self) -> None:
        """Say that the main loop moves: for programs that have no event loop.

        From the first call on, the check `main_loop` fails when `stalled_after` seconds have gone
        by without another. Raises `ValueError` for a server without `stalled_after`.
        """
        if self._watch is None:
            raise ValueError("stalled_after was not given, so nothing waits for a beat")
        self._watch.beat()

    def close(self) -> None:
        """Stop serving. Requests under way are dropped. Safe to call again, from any thread."""
        if not self.serving:
            return
        self._closed = True
        self._withdraw()
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        if get_ident() != self._thread:
            self._ended.acquire(timeout=_CLOSING)

    def _withdraw(self) -> None:
        """Be found no more. While it still listens: after that, the next one may have the file."""
        if self._watch is not None:
            self._watch.watching = False
        if self._file is not None and _inode(self._file) == self._inode:
            with contextlib.suppress(OSError):
                self._file.unlink()

    def _after_fork(self) -> None:
        """Leave the parent's port to the parent. The loop shares its selector: hands off."""
        self._socket.close()
        if self._watch is not None:
            self._watch.watching = False

    # In the thread

    def _run(self) -> None:
        self._thread = get_ident()
        try:
            self._loop = asyncio.SelectorEventLoop()
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as exc:  # noqa: BLE001 - raised where it is started, or else logged
            self._failure = exc
            if self._begun:
                self._withdraw()
                self._socket.close()
                with outlived():
                    log_exception(_logger, exc, "the side server has ended")
        finally:
            if not self._begun:
                self._ready.release()
            self._ended.release()

    async def _serve(self) -> None:
        await warm_up()
        serve = asyncio.start_server if self._file is None else asyncio.start_unix_server
        server = await serve(self._welcome, sock=self._socket, limit=_HEAD_BYTES)
        self._begun = True
        self._ready.release()
        if self._watch is not None:
            ticking = asyncio.create_task(_tick(self._watch))
        await self._stop.wait()
        # asyncio loses hold of a connection that it has just accepted when its server is closed.
        self._loop.remove_reader(self._socket)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        server.close()
        if self._watch is not None:
            ticking.cancel()
        # Its runner cancels the conversations that are under way.

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection in, if there is room for it."""
        if self._closed or (len(self._open) >= _CONNECTIONS and not self._idle):
            writer.transport.abort()
            return
        if len(self._open) >= _CONNECTIONS:
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.transport.abort()

        def leave(task: asyncio.Task[None]) -> None:
            del self._open[writer]
            writer.transport.abort()  # all is sent, or never will be
            error = None if task.cancelled() else task.exception()
            if error is not None:  # logged, and the next request is served
                with outlived():
                    log_exception(_logger, error, "the side server failed over a request")

        task = self._loop.create_task(self._converse(reader, writer))
        self._open[writer] = task
        task.add_done_callback(leave)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: read one request and answer it."""
        try:
            response = await self._answer_to(reader, writer)
            if response is not None:
                with self._is_idle(writer):
                    async with asyncio.timeout(_SEND_SECONDS):
                        await _send(reader, writer, response)
        except (OSError, TimeoutError):
            pass  # the client has gone, or takes too long

    @contextmanager
    def _is_idle(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._idle[writer] = None
        try:
            yield
        finally:
            self._idle.pop(writer, None)

    async def _answer_to(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Response | None:
        """Return the answer to what the client sends; None where it sends nothing more."""
        try:
            with self._is_idle(writer):
                async with asyncio.timeout(_HEAD_SECONDS):
                    raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            return plain(431, "Request head too large\n")
        except TimeoutError:
            return plain(408, "Request timeout\n")
        peer = writer.get_extra_info("peername")
        try:
            scope = read_head(raw[:-4], peer[0] if isinstance(peer, tuple) else "")
        except BadHeadError:
            return plain(400, "Bad request\n")
        endpoint = self._endpoint
        words, if_none_match = words_of_scope(scope, endpoint.mounted_rest_of(scope["path"]))
        response = endpoint.prepared(words, if_none_match)
        if response is None:
            caller = partial(caller_of_scope, scope)
            response = await endpoint.answer(Request(*words, if_none_match), caller, aside=True)
        return response


async def _tick(watch: Watch) -> None:
    while True:
        watch.tick()
        await asyncio.sleep(watch.pause)


async def _send(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, response: Response
) -> None:
    """Send the answer, and see the client leave.

    Where a connection is closed over what the client sent and nobody read, the kernel takes back
    what is on its way to it.
    """
    headers = (*response.headers, ("Date", formatdate(usegmt=True)), ("Connection", "close"))
    lines = [f"HTTP/1.1 {response.status_line}", *(f"{name}: {value}" for name, value in headers)]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + response.body)
    writer.write_eof()
    while await reader.read(_HEAD_BYTES):
        pass


def _watch(health: Health, stalled_after: float) -> Watch:
    """Return the watch of `health`, begun: a new one, or that of a server which serves no more."""
    check = health.checks.get(_WATCH_NAME)
    watch = None if check is None else check.probe
    if not isinstance(watch, Watch) or watch.watching:
        watch = Watch(lambda: health._background.home)  # noqa: SLF001 - the same house
        health.add(_WATCH_NAME, watch, groups=["live"], max_age=Watch.pause_of(stalled_after))
    watch.begin(stalled_after)
    return watch


def _checked_port(port: object) -> int:
    if port is None:
        raise ValueError("port is missing: give it, or unix_socket")
    if not isinstance(port, int) or isinstance(port, bool):
        raise WrongTypeError(f"port must be an int, not {type(port).__name__}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port={port} must be from 0 to 65535")
    return port


def _checked_host(host: object) -> str:
    host = text("host", host)
    if not host:  # the variable was empty, say: to sockets it means every address
        raise ValueError("host is empty: for every address write host='0.0.0.0' or '::'")
    return host


def _checked_file(file: object) -> Path:
    if not isinstance(file, str | os.PathLike):
        raise WrongTypeError(f"unix_socket must be a path, not {type(file).__name__}")
    if not os.fspath(file):
        raise ValueError("unix_socket is empty: it must be the path of a file")
    return Path(file)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        raise OSError(
            exc.errno,
            f"port={port} is in use, perhaps by another worker of this app: give each an address of"
            " its own, such as unix_socket=f'/run/shop-{os.getpid()}.sock'",
        ) from exc


def _listen_at(file: Path) -> socket.socket:
    """Listen on a UNIX socket, in place of one that an ended process has left there."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        if file.exists() and stat.S_ISSOCK(file.stat().st_mode) and not _is_served(file):
            file.unlink()
        listener.bind(str(file))
        listener.listen(_BACKLOG)
    except OSError as exc:  # which names no file
        listener.close()
        raise OSError(exc.errno, f"unix_socket={str(file)!r}: {exc.strerror or exc}") from exc
    return listener


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:  # there is none
        return None


def _is_served(file: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(file))
        except ConnectionRefusedError:
            return False
    return True
