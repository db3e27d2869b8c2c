"""One GET over TCP, TLS or a Unix socket, bounded in time from the first look-up to the last byte.

The standard library's parser does the reading. What it lacks is a limit for the whole: its timeout
starts anew with each packet, so a server that drips a byte a second is never late.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import time

from healthmw.cli._text import limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Sequence
    from http.client import HTTPMessage
    from typing import Any

    Headers = Sequence[tuple[str, str]]

BODY_LIMIT = 64 * 1024
"""How many bytes of a body are read by default: a verdict is four."""

_INFORMATIONAL = {*range(100, 200)} - {101}
"""Statuses after which the answer is still to come. 101 is one: another protocol comes after it."""

_CA_UNKNOWN = {2, 18, 19, 20, 21}
"""OpenSSL's codes for a certificate that nobody has signed whom we trust."""

_SAYINGS: dict[type[Exception], str] = {
    TimeoutError: "no connection in time",
    ConnectionRefusedError: "connection refused",
    ConnectionResetError: "the connection was reset",
    BrokenPipeError: "the connection was reset",
    FileNotFoundError: "there is no such socket",
    socket.gaierror: "the host name can't be resolved",
    UnicodeError: "the host name can't be resolved",  # by the codec idna: an empty or a long label
}


class NoAnswer(Exception):  # noqa: N818 - an outcome, not a bug
    """No whole HTTP answer came.

    `reached` tells whether there was a connection that a request could be sent by, and
    `listening` whether there was one at all: TLS may have failed on it.
    """

    def __init__(self, text: str, *, reached: bool, listening: bool = False) -> None:
        self.reached = reached
        self.listening = reached or listening
        super().__init__(text)


# Plain classes here and in _target.py: importing dataclasses would cost more than the request.
class Answer:
    """What a server said: status code and phrase, headers, and the body up to the limit."""

    __slots__ = ("body", "cut", "headers", "phrase", "status")

    def __init__(
        self, *, status: int, phrase: str, headers: HTTPMessage, body: bytes, cut: bool
    ) -> None:
        self.status = status
        self.phrase = phrase
        self.headers = headers
        self.body = body
        self.cut = cut
        """True when the body goes on beyond the limit."""


class Endpoint:
    """Where to connect: `host` and `port`, or `unix_socket`; with TLS if it has a context."""

    __slots__ = ("host", "port", "tls", "unix_socket")

    def __init__(
        self,
        *,
        host: str = "localhost",
        port: int = 0,
        unix_socket: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.unix_socket = unix_socket
        self.tls = tls

    @property
    def authority(self) -> str:
        """`host:port` as it stands in a URL and in the `Host` header."""
        if self.unix_socket is not None:
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def get(
    endpoint: Endpoint,
    path: str,
    *,
    headers: Headers = (),
    timeout: float,
    body_limit: int = BODY_LIMIT,
) -> Answer:
    """Ask for `path` and return the answer, whatever its status; redirects are not followed.

    All of it (name look-up, connection, TLS, answer) takes at most `timeout` seconds. Raises
    `NoAnswer` when no whole answer has come by then.
    """
    deadline = time.monotonic() + timeout
    with connection(endpoint, deadline=deadline) as sock:
        try:
            sock.sendall(_request(endpoint, path, headers))
            return _read(sock, deadline, body_limit)
        except TimeoutError:
            raise NoAnswer(f"no whole answer within {limit(timeout)}", reached=True) from None
        except http.client.RemoteDisconnected:
            raise NoAnswer("closed the connection without an answer", reached=True) from None
        except http.client.IncompleteRead:
            raise NoAnswer("the answer broke off in its body", reached=True) from None
        except http.client.HTTPException as exc:
            raise NoAnswer(
                f"what answers is not HTTP ({type(exc).__name__})", reached=True
            ) from None
        except ValueError:  # a chunk of a size below 0, say
            raise NoAnswer("what answers is not HTTP", reached=True) from None
        except OSError as exc:
            raise NoAnswer(_say(exc), reached=True) from None


@contextlib.contextmanager
def connection(endpoint: Endpoint, *, deadline: float) -> Iterator[socket.socket]:
    """Connect, with TLS where the endpoint has it; `deadline` is a monotonic time.

    Raises `NoAnswer` when that fails, with `reached` False.
    """
    try:
        sock = _connect(endpoint, deadline)
    except (OSError, ValueError) as exc:
        raise NoAnswer(_say(exc), reached=False) from None
    try:
        if endpoint.tls is not None:
            try:
                sock.settimeout(_left(deadline))
                sock = endpoint.tls.wrap_socket(sock, server_hostname=endpoint.host)
            except (OSError, ValueError) as exc:
                raise NoAnswer(f"TLS: {_say(exc)}", reached=False, listening=True) from None
        sock.settimeout(_left(deadline))
        yield sock
    finally:
        sock.close()


def _connect(endpoint: Endpoint, deadline: float) -> socket.socket:
    if endpoint.unix_socket is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(endpoint.unix_socket)
        except BaseException:
            sock.close()
            raise
        return sock
    addresses = _look_up(endpoint.host, endpoint.port, deadline)
    while True:
        address = addresses.pop(0)
        try:
            # A black hole must leave the addresses after it their share of the time.
            return socket.create_connection(address, _left(deadline) / (len(addresses) + 1))
        except OSError:
            if not addresses:
                raise


def _look_up(host: str, port: int, deadline: float) -> list[tuple[str, int]]:
    """Return the addresses of `host`. The resolver knows no timeout, so it runs in a thread."""
    with contextlib.suppress(OSError):
        return _addresses(host, port, socket.AI_NUMERICHOST)
    import queue
    import threading

    found: queue.SimpleQueue[list[tuple[str, int]] | Exception] = queue.SimpleQueue()

    def look() -> None:
        try:
            found.put(_addresses(host, port, 0))
        except (OSError, ValueError) as exc:  # ValueError: a name that IDNA refuses
            found.put(exc)

    threading.Thread(target=look, name="healthmw-resolver", daemon=True).start()
    try:
        answer = found.get(timeout=_left(deadline))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _addresses(host: str, port: int, flags: int) -> list[tuple[str, int]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(str(address[0]), port) for *_, address in found]


def _request(endpoint: Endpoint, path: str, headers: Headers) -> bytes:
    lines = {
        "host": f"Host: {endpoint.authority}",
        "user-agent": "User-Agent: healthmw",
        "accept": "Accept: */*",
        "accept-encoding": "Accept-Encoding: identity",
        "connection": "Connection: close",
    }
    for name, value in headers:
        key = name.lower()
        lines[key if key in lines else f"{key} {len(lines)}"] = f"{name}: {value}"
    head = "\r\n".join([f"GET {path} HTTP/1.1", *lines.values(), "", ""])
    return head.encode("latin-1")


def _read(sock: socket.socket, deadline: float, body_limit: int) -> Answer:
    response = http.client.HTTPResponse(_Source(sock, deadline), method="GET")  # type: ignore[arg-type]  # only makefile() is asked of it
    try:
        response.begin()
        while response.status in _INFORMATIONAL:  # of these, begin() passes over 100 alone
            response.headers = None  # type: ignore[assignment]  # what tells it to begin anew
            response.begin()
        expected = response.length
        body = response.read(body_limit + 1)
        if expected is not None and len(body) < min(expected, body_limit + 1):
            raise http.client.IncompleteRead(body, expected - len(body))
        return Answer(
            status=response.status,
            phrase=response.reason,
            headers=response.headers,
            body=body[:body_limit],
            cut=len(body) > body_limit,
        )
    finally:
        response.close()


class _Source(io.RawIOBase):
    """A socket as a raw stream whose every read ends by `deadline`."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _say(exc: Exception) -> str:
    """Say in a few words what went wrong with a connection."""
    for kind, text in _SAYINGS.items():
        if isinstance(exc, kind):
            return text
    # The attributes are those of ssl.SSLError and its certificate errors.
    if untrusted := getattr(exc, "verify_message", None):
        mend = " (give its CA with --cacert)" * (getattr(exc, "verify_code", 0) in _CA_UNKNOWN)
        return f"the certificate is not to be trusted: {untrusted}{mend}"
    reason = getattr(exc, "reason", None)
    if reason == "WRONG_VERSION_NUMBER":  # OpenSSL's words for whatever is no TLS
        return "wrong version number (does it speak TLS, or is it http://?)"
    if reason:
        return str(reason).lower().replace("_", " ")
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
