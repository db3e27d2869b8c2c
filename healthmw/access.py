"""Who may see more than the names: what `authorize=` of the middlewares is given.

An authorizer is any callable that takes a `Caller` and returns True to show everything, False to
show what all may see. It may raise `WrongCredentialsError`: after ten from one address, what it
grants to that address counts for nothing for a while. Under ASGI it may be async.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from healthmw._options import WrongTypeError, header_name, names, text
from healthmw.exceptions import WrongCredentialsError

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

__all__ = ("Authorizer", "Caller", "Networks", "Token", "WrongCredentialsError")

_TOKEN_LENGTH = 16
_HEADER_READ = 4096
_HOPS_READ = 32
_REMEMBERED = 1024

# What waitress and uWSGI say of a UNIX socket. No peer has such an address.
_NO_ADDRESS = ("localhost", "0.0.0.0")  # noqa: S104 - nothing is bound


class Caller:
    """Who asks, for an authorizer to judge."""

    __slots__ = ("_header", "method", "path", "peer", "raw")

    def __init__(
        self,
        *,
        peer: str,
        method: str,
        path: str,
        header: Callable[[str], str],
        raw: Any,
    ) -> None:
        self.peer: str = "" if peer in _NO_ADDRESS else peer
        """The address of who has connected, which may be a proxy; empty for a UNIX socket."""
        self.method: str = method
        self.path: str = path
        self.raw: Any = raw
        """The ASGI scope, the WSGI environ or, in a view, its request: for the session, say."""
        self._header = header

    def __repr__(self) -> str:
        """Say where from; the headers may hold secrets and are not shown."""
        return f"<Caller {self.peer!r}>"

    def header(self, name: str) -> str:
        """Return the value of a request header, repeated ones joined by a comma; empty if none."""
        return self._header(name)


Authorizer = Callable[[Caller], bool | Awaitable[bool]]
"""A function from a `Caller` to whether it may see everything."""


class Token:
    """Let those through who send `Authorization: Bearer <token>`.

    Any of `tokens` will do, so that one can be replaced without a gap. Tokens are compared in
    constant time. A wrong one raises `WrongCredentialsError`; another scheme than Bearer is the
    app's own affair and counts as none. Raises `ValueError` for a token of less than 16 characters,
    or with others than visible ASCII ones.
    """

    challenge = 'Bearer realm="health"'
    """What a 401 says is wanted. Who has a challenge isn't asked about a caller who guesses."""

    def __init__(self, *tokens: str) -> None:
        if not tokens:
            raise ValueError("tokens: give at least one")
        for token in tokens:
            if not isinstance(token, str):
                raise WrongTypeError(f"tokens must be str, not {type(token).__name__}")
            if len(token) < _TOKEN_LENGTH or not all("!" <= char <= "~" for char in token):
                raise ValueError(
                    f"tokens: a token needs {_TOKEN_LENGTH} or more visible ASCII characters; "
                    "make one with `python -c 'import secrets; print(secrets.token_urlsafe())'`"
                )
        self._digests = tuple(sha256(token.encode()).digest() for token in tokens)

    def __repr__(self) -> str:
        """Say how many tokens there are, and not what they are."""
        return f"<Token: {len(self._digests)} known>"

    def __call__(self, caller: Caller) -> bool:
        """Judge `caller`."""
        scheme, _, given = caller.header("authorization").partition(" ")
        if scheme.lower() != "bearer":
            return False
        digest = sha256(given.strip()[:_HEADER_READ].encode("latin-1", "replace")).digest()
        # All are compared, whichever fits: how long it takes tells nothing.
        if sum(hmac.compare_digest(digest, known) for known in self._digests):
            return True
        raise WrongCredentialsError("no such token")


class Networks:
    """Let those through who come from one of `networks`, such as `"10.0.0.0/8"`.

    What counts is the address of who has connected. Only where that is one of `proxies` (networks,
    too, or `"unix"` for whoever comes by a UNIX socket) is the header believed that proxies write:
    of `X-Forwarded-For` the last address that is no proxy of yours. A proxy that doesn't say for
    whom it asks is let through nowhere. Give the app's server no such option as `--proxy-headers`
    as well: it would put its own belief in the place of the address.

    Raises `ValueError` for what is no network.
    """

    def __init__(
        self, *networks: str, proxies: Iterable[str] = (), header: str = "x-forwarded-for"
    ) -> None:
        if not networks:
            raise ValueError("networks: give at least one")
        known = names("proxies", proxies)
        self._unix = "unix" in known
        self._networks = _networks("networks", networks)
        self._proxies = _networks("proxies", known - {"unix"})
        self._header = header_name("header", header)
        self._judged: dict[str, bool] = {}

    def __repr__(self) -> str:
        """Name the networks."""
        return f"<Networks {', '.join(map(str, self._networks))}>"

    def __call__(self, caller: Caller) -> bool:
        """Judge `caller`."""
        if self._proxies or self._unix:
            return self._belongs(self._origin(caller))
        judged = self._judged.get(caller.peer)
        if judged is None:
            judged = self._belongs(_address(caller.peer))
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            self._judged[caller.peer] = judged
        return judged

    def _belongs(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)

    def _origin(self, caller: Caller) -> IPv4Address | IPv6Address | None:
        """Return for whom the last proxy of ours asks, or who asks without one."""
        address = _address(caller.peer)
        if not (self._unix if not caller.peer else self._is_proxy(address)):
            return address
        for hop in reversed(caller.header(self._header).rsplit(",", _HOPS_READ)):
            address = _address(_without_port(hop.strip()))
            if not self._is_proxy(address):
                return address
        return None

    def _is_proxy(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in proxy for proxy in self._proxies)


def _networks(option: str, networks: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    found = []
    for network in networks:
        given = text(option, network)
        try:
            found.append(ip_network(given))
        except ValueError as exc:
            raise ValueError(f"{option}: {exc}") from None
    return tuple(found)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped  # what a socket for both kinds makes of an IPv4 peer
    return address


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
