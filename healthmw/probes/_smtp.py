"""A probe of a mail server."""

from __future__ import annotations

import base64
import socket
from typing import TYPE_CHECKING

from healthmw._addresses import show_address
from healthmw._driver import check_timeout
from healthmw._options import count
from healthmw._wire import hold, tls_context
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from healthmw._model import Measurement
    from healthmw._wire import Wire

_PORT, _STARTTLS_PORT, _TLS_PORT = 25, 587, 465
_MAX_PORT = 65535
_LINE, _LINES = 2048, 100  # bytes and lines that one reply may have; RFC 5321 asks for 512 bytes


class SMTPProbe:
    """Hold a conversation with a mail server up to where a message would begin; none is sent.

    A pass proves that the server greeted and answered `EHLO`; with `starttls=True`, that it then
    went on with TLS and a valid certificate; with `tls=True`, that it spoke TLS from the first
    byte, with a valid certificate; with `username` and `password`, that it accepted the login
    (`PLAIN` or `LOGIN`). These need TLS, or else they would be sent in the clear.

    `port` is 25 by default, 587 with `starttls` and 465 with `tls`. `verify`: True checks the
    server's certificate; an `ssl.SSLContext` checks it by that; False does not. `timeout` (seconds)
    is for all of it; the check's own timeout counts where it is shorter.

    Each run is a session of its own, ended by `QUIT`, for the greeting is the first thing that an
    overloaded server denies: mind the interval where the server counts sessions or logins. Measures
    `latency_seconds`. Raises `ProbeFailedError`. Runs on asyncio and trio, without a driver.
    """

    is_async = True

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        starttls: bool = False,
        tls: bool = False,
        username: str | None = None,
        password: str | None = None,
        verify: bool | ssl.SSLContext = True,
        timeout: float = 2.0,
    ) -> None:
        if starttls and tls:
            raise ValueError(
                "starttls and tls exclude each other: tls encrypts from the first byte"
            )
        if (username is None) != (password is None):
            raise ValueError("username and password belong together")
        if username is not None and not (starttls or tls):
            raise ValueError("password needs starttls or tls: it would be sent in the clear")
        if verify is not True and not (starttls or tls):
            raise ValueError("verify is for starttls=True or tls=True")
        if port is None:
            port = _TLS_PORT if tls else _STARTTLS_PORT if starttls else _PORT
        if not host:
            raise ValueError("host must not be empty")
        self._host, self._port = host, count("port", port, _MAX_PORT)
        self._starttls, self._tls = starttls, tls
        self._login = None if username is None or password is None else (username, password)
        self._context = tls_context(verify) if starttls or tls else None
        self._timeout = check_timeout(timeout)

    def __repr__(self) -> str:
        return f"<SMTPProbe {show_address(self._host, self._port)}>"

    async def __call__(self) -> Mapping[str, Measurement]:
        """Hold one session."""
        tls = self._context if self._tls else None
        return await hold(self._talk, self._host, self._port, tls, timeout=self._timeout)

    async def _talk(self, talk: Wire) -> None:
        await _reply(talk, 220, "the greeting")
        offers = await _hello(talk)
        if self._starttls:
            if "STARTTLS" not in offers:
                raise ProbeFailedError("the server offers no STARTTLS")
            await _ask(talk, "STARTTLS", 220)
            assert self._context is not None  # noqa: S101 - for the type checker
            await talk.start_tls(self._context)
            offers = await _hello(talk)
        if self._login is not None:
            await _log_in(talk, offers, *self._login)
        await _ask(talk, "QUIT", 221)


async def _hello(talk: Wire) -> set[str]:
    """Say `EHLO` and return what the server offers; login methods as `AUTH name`."""
    offers: set[str] = set()
    for line in await _ask(talk, f"EHLO {_own_name()}", 250):
        word, *rest = line.upper().replace("AUTH=", "AUTH ").split() or [""]
        offers |= {f"AUTH {method}" for method in rest} if word == "AUTH" else {word}
    return offers


async def _log_in(talk: Wire, offers: set[str], username: str, password: str) -> None:
    if "AUTH PLAIN" in offers:
        secret = _base64(f"\0{username}\0{password}")
        await _ask(talk, f"AUTH PLAIN {secret}", 235, shown="the login")
    elif "AUTH LOGIN" in offers:
        await _ask(talk, "AUTH LOGIN", 334)
        await _ask(talk, _base64(username), 334, shown="the user name")
        await _ask(talk, _base64(password), 235, shown="the login")
    else:
        raise ProbeFailedError("the server offers no login by PLAIN or LOGIN")


async def _ask(talk: Wire, command: str, expected: int, *, shown: str = "") -> list[str]:
    await talk.send(command.encode() + b"\r\n")
    return await _reply(talk, expected, shown or command)


async def _reply(talk: Wire, expected: int, to: str) -> list[str]:
    """Return the lines of a reply, without their codes; raise unless it is the expected one."""
    texts: list[str] = []
    for _ in range(_LINES):
        line = (await talk.line(_LINE)).decode(errors="replace")
        if not line[:3].isdigit() or line[3:4] not in {" ", "-", ""}:
            raise ProbeFailedError("the server does not speak SMTP")
        texts.append(line[4:])
        if line[3:4] != "-":
            if int(line[:3]) != expected:
                raise ProbeFailedError(f"the answer to {to} is {line[:200]}")
            return texts
    raise ProbeFailedError(f"the answer to {to} does not end")


def _own_name() -> str:
    name = socket.gethostname()
    return name if "." in name and name.isascii() else "[127.0.0.1]"  # as RFC 5321 4.1.4 allows


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
