"""The options of `HTTPProbe`, checked and taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from healthmw._options import WrongTypeError, header_name, header_value

if TYPE_CHECKING:
    from collections.abc import Container

DEFAULT_PORTS = {"http": 80, "https": 443}


def split(url: str) -> SplitResult:
    """Take a URL apart, without its text in any complaint: it may hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("url is not a URL: check its host and port") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or port == 0:
        raise ValueError("url must be like https://host/path or http://host:port/path")
    return parts


def statuses(expected: int | Iterable[int]) -> Container[int]:
    """Return the statuses that are expected."""
    values: Any = (expected,) if isinstance(expected, int) else expected
    if not isinstance(values, range):
        values = tuple(values) if isinstance(values, Iterable) else ()
    if not values or not all(isinstance(one, int) and 100 <= one <= 599 for one in values):
        raise ValueError(f"expect_status must be one or more of 100 to 599, not {expected!r}")
    found: Container[int] = values
    return found


def show(statuses: Container[int]) -> str:
    """Return `statuses` in words."""
    if isinstance(statuses, range):
        return f"{statuses[0]} to {statuses[-1]}"
    return " or ".join(str(status) for status in range(100, 600) if status in statuses)


def as_bytes(option: str, value: str | bytes | None) -> bytes | None:
    """Return text as its UTF-8 bytes."""
    if not isinstance(value, str | bytes | None):
        raise WrongTypeError(f"{option} must be str or bytes, not {type(value).__name__}")
    return value.encode() if isinstance(value, str) else value


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Refuse what the client would refuse at run time, in an error that shows the value."""
    if not isinstance(headers, Mapping):
        raise WrongTypeError(f"headers must be a mapping, not {type(headers).__name__}")
    for name, value in headers.items():
        header_name("headers: name", name)
        header_value(f"headers: the value of {name!r}", value)
    return dict(headers)


def entries(hosts: Iterable[str]) -> list[str]:
    """Return the entries of `allow_hosts`."""
    if isinstance(hosts, str):
        raise TypeError(f"allow_hosts must be a collection of hosts: write ({hosts!r},)")
    return list(hosts)


def host_and_port(entry: str) -> tuple[str, int | None]:
    """Return host and port of an entry of `allow_hosts`, None for the scheme's default port."""
    try:
        parts = urlsplit(f"//{entry}")
        found = parts.hostname, parts.port
    except ValueError:
        found = None, None
    if not found[0] or parts.netloc != entry or "@" in entry:
        raise ValueError(f"allow_hosts: {entry!r} must be 'host' or 'host:port'")
    return found[0], found[1]
