"""A probe of an LDAP directory."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from healthmw._addresses import show_address
from healthmw._driver import check_timeout
from healthmw._wire import hold, tls_context
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from healthmw._model import Measurement
    from healthmw._wire import Wire

_PORTS = {"ldap": 389, "ldaps": 636}
_MAX_ANSWER = 65536
_LENGTH_BYTES = 4

# BER tags, by RFC 4511
_SEQUENCE, _INTEGER, _OCTETS, _ENUMERATED = 0x30, 0x02, 0x04, 0x0A
_BIND, _BIND_ANSWER, _UNBIND = 0x60, 0x61, 0x42
_EXTENDED, _EXTENDED_ANSWER = 0x77, 0x78
_SIMPLE, _REQUEST_NAME = 0x80, 0x80
_STARTTLS = b"1.3.6.1.4.1.1466.20037"

_CODES = {
    1: "operations error",
    2: "protocol error",
    8: "stronger authentication required",
    13: "confidentiality required",
    32: "no such object",
    34: "invalid DN syntax",
    48: "inappropriate authentication",
    49: "invalid credentials",
    51: "busy",
    52: "unavailable",
    53: "unwilling to perform",
}


class LDAPProbe:
    """Bind to an LDAP directory.

    `url` is `ldap://HOST:PORT` (389) or `ldaps://HOST:PORT` (636). `bind_dn` and `password` are for
    a simple bind, and may stand in the URL as user and password, percent-encoded; without them the
    bind is anonymous, which a directory may answer without asking its database.

    A pass proves that the directory accepted the bind; with `ldaps://` or `starttls=True`, over TLS
    and with a valid certificate. A password needs one of these, or `clear_text=True`.

    `verify`: True checks the server's certificate; an `ssl.SSLContext` checks it by that; False
    does not. `timeout` (seconds) is for all of it; the check's own timeout counts where it is
    shorter.

    Each run opens a connection and unbinds, so that a certificate that has run out is noticed.
    Measures `latency_seconds`. Raises `ProbeFailedError`. Runs on asyncio and trio, without a
    driver.
    """

    is_async = True

    def __init__(
        self,
        url: str,
        *,
        bind_dn: str = "",
        password: str = "",
        starttls: bool = False,
        clear_text: bool = False,
        verify: bool | ssl.SSLContext = True,
        timeout: float = 2.0,
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
        except (KeyError, ValueError):
            host, port = None, 0
        if not host:
            raise ValueError("url must be like ldap://HOST:389 or ldaps://HOST:636")
        self._host, self._port = host, port
        self._tls = parts.scheme == "ldaps"
        self._dn = bind_dn or unquote(parts.username or "")
        self._password = password or unquote(parts.password or "")
        self._starttls = starttls
        if self._tls and starttls:
            raise ValueError("starttls is for ldap://: ldaps:// encrypts from the first byte")
        if bool(self._dn) != bool(self._password):
            # By RFC 4513 5.1.2 a name without a password is a bind that proves nothing.
            raise ValueError("bind_dn and password belong together")
        encrypted = self._tls or starttls
        if self._password and not encrypted and not clear_text:
            raise ValueError("password needs ldaps://, starttls=True or clear_text=True")
        if verify is not True and not encrypted:
            raise ValueError("verify is for ldaps:// or starttls=True")
        self._context = tls_context(verify) if encrypted else None
        self._timeout = check_timeout(timeout)

    def __repr__(self) -> str:
        scheme = "ldaps" if self._tls else "ldap"
        return f"<LDAPProbe {scheme}://{show_address(self._host, self._port)}>"

    async def __call__(self) -> Mapping[str, Measurement]:
        """Bind once."""
        tls = self._context if self._tls else None
        return await hold(self._talk, self._host, self._port, tls, timeout=self._timeout)

    async def _talk(self, talk: Wire) -> None:
        if self._starttls and self._context is not None:
            request = _element(_EXTENDED, _element(_REQUEST_NAME, _STARTTLS))
            await _ask(talk, 1, request, _EXTENDED_ANSWER, "StartTLS")
            await talk.start_tls(self._context)
        version = _element(_INTEGER, b"\x03")
        name = _element(_OCTETS, self._dn.encode())
        secret = _element(_SIMPLE, self._password.encode())
        await _ask(talk, 2, _element(_BIND, version + name + secret), _BIND_ANSWER, "the bind")
        await talk.send(_message(3, _element(_UNBIND, b"")))


async def _ask(talk: Wire, number: int, request: bytes, answer_tag: int, what: str) -> None:
    await talk.send(_message(number, request))
    body = await talk.exactly(await _size(talk))
    try:
        _, message_id, rest = _taken(body)
        tag, content, _ = _taken(rest)
        code_tag, code, rest = _taken(content)
        _, _matched, rest = _taken(rest)
        _, text, _ = _taken(rest)
    except (IndexError, ValueError):
        raise ProbeFailedError("the server does not speak LDAP") from None
    if code_tag != _ENUMERATED or len(code) != 1:
        raise ProbeFailedError("the server does not speak LDAP")
    if tag != answer_tag or message_id != bytes([number]) or code[0]:
        reason = _CODES.get(code[0], f"result code {code[0]}")
        said = text.decode(errors="replace")[:200]
        raise ProbeFailedError(f"{what} was refused: {reason}{said and f' ({said})'}")


async def _size(talk: Wire) -> int:
    """Return the length of the message that comes."""
    tag, size = await talk.exactly(2)
    more = size & 0x7F if size & 0x80 else 0
    # More is no length that would do, and whoever waits for more waits in vain.
    if tag != _SEQUENCE or more > _LENGTH_BYTES:
        raise ProbeFailedError("the server does not speak LDAP")
    if more:
        size = int.from_bytes(await talk.exactly(more))
    if size > _MAX_ANSWER:
        raise ProbeFailedError("the server does not speak LDAP")
    return size


def _taken(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and content of the first element, and what follows it."""
    tag, size, start = data[0], data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start])
    if start + size > len(data):
        raise ValueError("cut short")
    return tag, data[start : start + size], data[start + size :]


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def _message(number: int, operation: bytes) -> bytes:
    return _element(_SEQUENCE, _element(_INTEGER, bytes([number])) + operation)
