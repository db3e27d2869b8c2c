"""From the text of a TARGET to something that can be observed."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from healthmw.cli import _options
from healthmw.cli._exit import CouldNotTell
from healthmw.cli._http import Endpoint
from healthmw.cli._target import DEFAULT_PATH, HTTPTarget, Question, escaped, tls_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from urllib.parse import SplitResult

    from healthmw.cli._http import Headers
    from healthmw.cli._target import Target

KINDS = """\
a TARGET is one of:
  http://HOST[:PORT][/PATH]     (https:// too) a health check; without a path,
                                /health_check
  unix:SOCKET[:/PATH]           the same, through a Unix socket
  MODULE:ATTRIBUTE              a Health, run in this process without a server
  SCHEME://...                  a dependency: postgresql, mysql, sqlite, redis,
                                mongodb, amqp, kafka, smtp, tcp, ... (see
                                healthmw.probes.probe_from_dsn)"""


def resolve(text: str, args: argparse.Namespace, *, kind: type[Question] = Question) -> Target:
    """Return the target that `text` names, to be asked as the options `args` say.

    `kind` is how HTTP is asked.

    Raises `CouldNotTell` when it names none.
    """
    scheme = text.partition(":")[0].lower()
    if scheme in {"http", "https"}:
        return _url(text, args, kind)
    if scheme == "unix":
        return _unix(text, args, kind)
    if "://" in text:
        return _dependency(text, args)
    return _health(text, args)


def _health(text: str, args: argparse.Namespace) -> Target:
    if text.startswith("-"):  # its value may be a token
        raise CouldNotTell(f"there is no option {text.partition('=')[0]}")
    module, mark, attribute = text.partition(":")
    if not (mark and all(part.isidentifier() for part in f"{module}.{attribute}".split("."))):
        raise CouldNotTell(
            f"{_plain(text)!r} is not a target: give http://..., https://..., unix:...,"
            " MODULE:ATTRIBUTE or a dependency like postgresql://..."
        )
    _refuse(_options.of_http(args), text, "which is run in this process")
    from healthmw.cli._in_process import named

    return named(text, group=args.group, strict=args.strict)


def _dependency(text: str, args: argparse.Namespace) -> Target:
    name = _plain(text)
    unheeded = ["--group"] if args.group else _options.of_http(args)
    _refuse(unheeded, name, "a dependency")
    from healthmw.cli._in_process import dependency

    timeout = getattr(args, "request_timeout", args.timeout)
    return dependency(text, name=name, timeout=timeout, strict=args.strict)


def _refuse(options: list[str], name: str, what: str) -> None:
    """Raise `CouldNotTell` where options were given that the target `name` can't heed."""
    if options:
        raise CouldNotTell(
            f"{options[0]} means nothing to {name}, {what}: ask that by a command of its own,"
            f" without {options[0]}"
        )


def _url(text: str, args: argparse.Namespace, kind: type[Question]) -> Target:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
    except ValueError:  # whose message may quote a password
        raise CouldNotTell(
            f"{_plain(text)!r} is not a URL: http://HOST[:PORT][/PATH], with a port up to 65535 and"
            " special characters percent-encoded in what comes before the host"
        ) from None
    if not host:
        raise CouldNotTell(f"{_plain(text)!r} names no host: http://HOST[:PORT][/PATH]")
    if port == 0:
        raise CouldNotTell(f"{_plain(text)!r}: there is no port 0")
    secure = parts.scheme.lower() == "https"
    tls = tls_context(cacert=args.cacert, insecure=args.insecure) if secure else None
    endpoint = Endpoint(host=host, port=port or (443 if secure else 80), tls=tls)
    path = (parts.path or DEFAULT_PATH) + (f"?{parts.query}" if parts.query else "")
    return HTTPTarget(
        endpoint,
        escaped(path),
        _options.question(args, headers=_credentials(parts), kind=kind),
    )


def _unix(text: str, args: argparse.Namespace, kind: type[Question]) -> Target:
    socket, _, path = text.partition(":")[2].removeprefix("//").partition(":")
    path = path or DEFAULT_PATH
    if not (socket and path.startswith("/")):
        raise CouldNotTell(f"{text!r} is not a Unix socket and a path: unix:SOCKET[:/PATH]")
    endpoint = Endpoint(unix_socket=socket)
    return HTTPTarget(endpoint, escaped(path), _options.question(args, kind=kind))


def _credentials(parts: SplitResult) -> Headers:
    """Return the header for the URL's user and password, if it has them."""
    if parts.username is None:
        return []
    from base64 import b64encode

    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return [("Authorization", f"Basic {b64encode(pair).decode()}")]


def _plain(text: str) -> str:
    """Return `text` without what may be a password in it."""
    scheme, mark, rest = text.partition("://")
    if not mark:  # no URL, or one whose beginning is missing: ann:password@host
        scheme, rest = "", text
    rest, _, query = rest.partition("?")
    if "@" in query:  # of a value in there, or is it all a password with a question mark in it?
        return f"{scheme}{mark}***"
    user, at, place = rest.rpartition("@")
    return f"{scheme}{mark}{place}" if mark or not user else f"***{at}{place}"
