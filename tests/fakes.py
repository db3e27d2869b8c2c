"""Servers that misbehave in a known way, in a thread of the test's own process."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    Talk = Callable[[socket.socket, threading.Event], None]

_PATIENCE = 20.0


class FakeServer:
    """Listen, on a free port unless told, and hand every connection to `talk`, each in a thread."""

    def __init__(self, talk: Talk, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._talk = talk
        self._tls = tls
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]

    @property
    def accepted(self) -> int:
        """How many connections there have been."""
        return len(self._clients)

    def __enter__(self) -> Self:
        self._start(self._serve)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for sock in (self._listener, *self._clients):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
        self._join(self._threads)
        self._listener.close()

    def wait_until_left(self, by: int = 1) -> None:
        """Wait until that many clients have come, and all have closed their connections."""
        deadline = time.monotonic() + _PATIENCE
        while len(self._threads) <= by and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(self._threads) > by, "a connection never came"
        self._join(self._threads[1:])

    def _join(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            thread.join(_PATIENCE)
            assert not thread.is_alive(), "a connection is still open"

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _serve(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                self._clients.append(client)
                self._start(self._converse, client)

    def _converse(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._tls is None:
                self._talk(client, self._stop)
            else:
                # A second handle, because wrapping takes the first one's socket away.
                with self._tls.wrap_socket(client.dup(), server_side=True) as wrapped:
                    self._talk(wrapped, self._stop)


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """Yield a port where nothing is accepted and nothing refused: its queue is full (on Linux)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def receive(client: socket.socket, until: bytes = b"") -> bytes:
    """Return what the client sent, up to `until`; b"" when it left or the test is over."""
    got = b""
    while chunk := client.recv(65536):
        got += chunk
        if until in got:
            return got
    return b""


def silent(client: socket.socket, stop: threading.Event) -> None:
    """Accept, listen, and never answer."""
    while receive(client):
        pass


def garbage(client: socket.socket, stop: threading.Event) -> None:
    """Answer everything with bytes that no protocol knows, at once and again."""
    client.sendall(b"\x00\xff\x13garbage\r\n" * 8)
    while receive(client):
        client.sendall(b"\x00\xff\x13garbage\r\n" * 8)


def reset(client: socket.socket, stop: threading.Event) -> None:
    """Hear the client out, then cut the connection with a RST."""
    receive(client)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drip(text: bytes, every: float = 0.1) -> Talk:
    """Answer with `text`, a byte at a time, and then over again."""

    def talk(client: socket.socket, stop: threading.Event) -> None:
        receive(client)
        while not stop.is_set():
            for byte in text:
                client.sendall(bytes([byte]))
                if stop.wait(every):
                    return

    return talk


def http(answer: bytes | dict[str, bytes], *, seen: list[bytes] | None = None) -> Talk:
    """Answer every HTTP request with `answer`, a whole response, or with the one for its path."""

    def talk(client: socket.socket, stop: threading.Event) -> None:
        while request := receive(client, b"\r\n\r\n"):
            if seen is not None:
                seen.append(request)
            path = request.split()[1].decode()
            chosen = answer[path] if isinstance(answer, dict) else answer
            client.sendall(chosen)
            if b"connection: close" in chosen.lower():
                return

    return talk
