"""A response without I/O, for both transports."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from healthmw._answers import GENERAL
from healthmw.exceptions import DependencyUnavailable
from healthmw.render import text

_MATCH_READ = 1024
UNAVAILABLE = "Service temporarily unavailable, please try again later"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Response:
    """A complete response, for both interfaces. It is not changed once it is made."""

    __slots__ = ("_etag", "_raw", "body", "headers", "status", "status_line")

    def __init__(self, status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.status_line = f"{status} {_PHRASES.get(status, 'Status')}"
        self._etag = next((value for name, value in headers if name == "ETag"), "")
        self._raw = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers]

    def messages(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the response as ASGI messages.

        They and the list in them are new each time: whoever stands further out may add to them.
        """
        headers = self._raw.copy()
        return (
            {"type": "http.response.start", "status": self.status, "headers": headers},
            {"type": "http.response.body", "body": self.body},
        )

    def without_body(self) -> Response:
        """Return what `HEAD` gets: the headers of `GET` and nothing else."""
        return Response(self.status, self.headers, b"")

    def conditional(self, if_none_match: str) -> Response:
        """Return 304 in place of what the client has already (RFC 9110, section 13.1.2)."""
        if not if_none_match or not self._etag or self._etag not in if_none_match[:_MATCH_READ]:
            return self
        headers = tuple(one for one in self.headers if not one[0].startswith("Content-"))
        return Response(304, headers, b"")


def plain(status: int, message: str, *headers: tuple[str, str]) -> Response:
    """Return a line of text, every word of it our own."""
    body = message.encode()
    return Response(
        status,
        (
            ("Content-Type", text.CONTENT_TYPE),
            ("Content-Length", str(len(body))),
            *GENERAL,
            *headers,
        ),
        body,
    )


def refusal(error: BaseException) -> DependencyUnavailable | None:
    """Return why a call was refused, where `error` tells of nothing else.

    A task group makes a group of what the calls in it raise. Of several the one with the longest
    `retry_after` is returned; one that is unknown counts as none.
    """
    refusals: list[DependencyUnavailable] = []
    errors = [error]
    while errors:
        found = errors.pop()
        if isinstance(found, DependencyUnavailable):
            refusals.append(found)
        elif isinstance(found, BaseExceptionGroup):
            errors += found.exceptions
        else:
            return None
    return max(refusals, key=lambda one: one.retry_after or 0.0)


def unavailable(error: DependencyUnavailable, method: str) -> Response:
    """Return the answer to a request whose dependency is unavailable. It names nothing."""
    response = plain(503, f"{UNAVAILABLE}\n", *retry_after(error).items())
    return response.without_body() if method == "HEAD" else response


def retry_after(error: DependencyUnavailable) -> dict[str, str]:
    """Return the header that says when to try again, where that is known: in whole seconds."""
    seconds = error.retry_after
    if seconds is None or not math.isfinite(seconds):
        return {}
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
