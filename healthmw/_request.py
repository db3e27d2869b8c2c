"""A request to the endpoint: what its answer depends on, and who sends it, from both transports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from healthmw.access import Caller

if TYPE_CHECKING:
    from collections.abc import Mapping


Words = tuple[str, str, bytes | str, bytes | str]
"""Method, path behind the endpoint's own, query and `Accept`, as they came."""


class Request(NamedTuple):
    """What the answer depends on, beside who asks: `Words`, and one thing more, as it came."""

    method: str
    rest: str
    """The path behind the endpoint's own."""
    query: bytes | str = ""
    accept: bytes | str = ""
    if_none_match: bytes | str = ""


def as_text(value: bytes | str) -> str:
    """Return what stands in a header or a query as text."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


def words_of_scope(scope: Mapping[str, Any], rest: str) -> tuple[Words, bytes]:
    """Return the request of an ASGI scope: its words, and `If-None-Match`."""
    accept = if_none_match = b""
    for name, value in scope["headers"]:
        if name == b"accept":
            accept = accept + b"," + value if accept else value
        elif name == b"if-none-match":
            if_none_match = value
    return (scope["method"], rest, scope.get("query_string", b""), accept), if_none_match


def caller_of_scope(scope: Mapping[str, Any]) -> Caller:
    """Return who sends the request of an ASGI scope."""

    def header(name: str) -> str:
        wanted = name.lower().encode("latin-1", "replace")
        return as_text(b",".join(value for key, value in scope["headers"] if key == wanted))

    client = scope.get("client")
    return Caller(
        peer=client[0] if client else "",
        method=scope["method"],
        path=scope["path"],
        header=header,
        raw=scope,
    )


def words_of_environ(environ: Mapping[str, Any], rest: str) -> tuple[Words, str]:
    """Return the same of a WSGI environ, or of what looks like one."""
    query, accept = environ.get("QUERY_STRING", ""), environ.get("HTTP_ACCEPT", "")
    words = environ["REQUEST_METHOD"], rest, query, accept
    return words, environ.get("HTTP_IF_NONE_MATCH", "")


def caller_of_environ(environ: Mapping[str, Any], raw: object = None) -> Caller:
    """Return who sends the request of a WSGI environ, or of what looks like one."""

    def header(name: str) -> str:
        value: str = environ.get("HTTP_" + name.upper().replace("-", "_"), "")
        return value

    return Caller(
        peer=environ.get("REMOTE_ADDR", ""),
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", ""),
        header=header,
        raw=environ if raw is None else raw,
    )
