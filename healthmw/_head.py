"""The head of an HTTP/1 request, read by the letter (RFC 9112). No I/O."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.[01]")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t -~\x80-\xff]*)")
_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)


class BadHeadError(ValueError):
    """What came is no request of HTTP/1."""


def read_head(raw: bytes, peer: str) -> dict[str, Any]:
    """Return the request as an ASGI scope. `raw` is all up to the empty line.

    Raises `BadHeadError`. What is doubtful, like a folded header, is refused and not guessed at.
    """
    first, *lines = raw.split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        raise BadHeadError("request line")
    headers: list[tuple[bytes, bytes]] = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BadHeadError("header")
        headers.append((field[1].lower(), field[2].rstrip(b" \t")))
    target = _ORIGIN.sub(b"", request[2], count=1)  # a proxy sends the whole URL
    path, _, query = target.partition(b"?")
    if path and not path.startswith(b"/"):
        raise BadHeadError("target")
    return {
        "type": "http",
        "method": request[1].decode(),
        "path": unquote(path.decode()) or "/",
        "query_string": query,
        "headers": headers,
        "client": (peer, 0) if peer else None,
    }
