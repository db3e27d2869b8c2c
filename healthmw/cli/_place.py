"""Where a server under trial will listen: a free port, and nobody there before it."""

from __future__ import annotations

import socket
import time

from healthmw.cli._exit import CouldNotTell
from healthmw.cli._http import Endpoint, NoAnswer, connection

_ANY = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to look, not to bind
_LOOK = 2.0


def reachable(host: str) -> str:
    """Return the address to connect to when a server listens on `host`."""
    return _ANY.get(host, host)


def free_port(host: str) -> int:
    """Return a TCP port that nobody has on `host`. Raises `CouldNotTell` when `host` isn't ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((host, 0))
        except OSError as exc:
            raise CouldNotTell(
                f"--host {host}: no free port can be found there ({exc.strerror})"
            ) from None
        port: int = sock.getsockname()[1]
        return port


def ensure_vacant(endpoint: Endpoint) -> None:
    """Raise `CouldNotTell` when somebody listens there: they would answer in our server's place."""
    plain = Endpoint(
        host=endpoint.host, port=endpoint.port, unix_socket=endpoint.unix_socket
    )  # whoever listens need not speak TLS
    try:
        with connection(plain, deadline=time.monotonic() + _LOOK):
            pass
    except NoAnswer:
        return
    where = endpoint.unix_socket or f"port {endpoint.port}"
    mend = (
        "take another path"
        if endpoint.unix_socket
        else "give another --port, or none for a free one"
    )
    raise CouldNotTell(
        f"{where} is taken before the start: something else would answer there; stop it, or {mend}"
    )
