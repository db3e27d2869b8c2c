"""Takes credentials out of any text before it is kept, logged or shown.

Drivers put what they were given into their errors: the whole connection string, a header, a
configuration. What stands between such a secret and a log line is this module. Where a text can be
read in two ways, it takes out too much rather than too little.

Every pattern is linear in the length of the text: a repetition is possessive, or bounded, or can't
reach past the place where the next match may begin.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator

MASK = "***"
_TEXT_KEPT = 10_000
_MESSAGE_KEPT = 1_000
_FRAMES_KEPT = 10
_GROUP_KEPT = 3
_LEFT_OUT = "…\n"

# A secret that is cut in two may have lost the half by which it is known. So this much more is read
# than is kept, and what may hold such a half is dropped.
_MARGIN = 4_000

# A secret shorter than this is taken out only where it stands alone: "a" must not turn "database"
# into noise, which would also tell what the secret is.
_STANDS_ALONE = 4


class _Form(NamedTuple):
    """How a secret may be written, as a regular expression."""

    pattern: str
    flags: re.RegexFlag = re.NOFLAG


_PEM = _Form(
    r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----).*?(-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)

# scheme://user:password@host. A password may hold raw `@`, `:` and `/`, so it ends at the last `@`
# before white space or before the next URL.
_URL = _Form(r"(://[^\s:/?#]*+:)((?:(?!://)\S)*)@")
_PORT = re.compile(r"\d{1,5}(?:[\"'<>)\]},;]|$)")
_PORT_AND_PATH = re.compile(r"\d{1,5}[/?#]")
_PATHS_MAY_HOLD_AT = ("http", "https", "ws", "wss")

# https://token@host: of HTTP, what stands there alone and is long is a key (Sentry's), or a token.
_HTTP_KEY = _Form(r"(https?://)[^\s:/?#@\"']{12,256}@", re.IGNORECASE)

# user:password@host without a scheme, as the `netloc` of a parsed URL.
_NETLOC = _Form(
    r"(?<![\w/@.:+-])(?!(?:mailto|to|cc|bcc|from|by|e-?mail|contact):)"
    r"([\w.+-]{1,64}:)[^\s@:/\"']{1,256}@(?=[\w\[])(?!sha\d)",
    re.IGNORECASE,
)

# The host as who reads a URL only to its first `@` looks it up: the password goes on in it.
_HOST = _Form(
    r"""(\b(?:host(?:[ _]?name)?|resolve|server on) ["']?)[^\s"']{1,256}@(?=[\w\[])""",
    re.IGNORECASE,
)

_NAME = r"""
    (?: pass (?: word | wd | phrase ) | (?: (?<![a-z]) | (?<=db) | (?<=user) | (?<=require) ) pass
      | (?<![a-z]) (?: pwd | pw )
      | secret (?: [ _-]? (?: access [ _-]? )? key )?
      | (?: api | access | account | auth | private | signing | encryption | master
          | shared | storage ) [ _-]? key
      | token | credentials? | sess (?: ion )? [ _-]? id | (?: set- )? cookie | authorization
      | (?: (?<![a-z]) (?: auth | sig ) | signature ) (?= \s{0,8} = )
    ) (?: [_-]? (?: hash | \d{1,2} ) )?
"""
_SCHEMES = "(?: bearer | basic | token | negotiate )"
_DELIMITER = r"""[\s,;&)\]}>"'…]"""
_QUOTED = r"""
    b? \\{1,8} ["'] (?: (?! \\{1,8} ["'] ) [^\n] )*+ (?: \\{1,8} ["'] )?
  | b? ' (?: \\ . | [^'\\\n] )*+ '?
  | b? " (?: \\ . | [^"\\\n] )*+ "?
"""
# It ends before white space, before the next `name=` or `"name":`, and before what closes the text
# around it. So a password may hold a comma, an ampersand or a bracket.
_BARE = r"""
    (?: (?! [&;,] \s{0,8} [\w.-]{1,64} =
          | [&;,] \s{0,8} \\{0,8} ["'] [\w.-]{1,64} \\{0,8} ["'] \s{0,8} :
          | ["')\]}>,;]{0,4} (?: \s | $ )
          | ["'] \s{0,8} [,}\])] )
        \S )*+
"""
# "(using password: YES)" says nothing, and what is masked stays as it is.
_HARMLESS = rf"""
    (?! (?: (?: {_SCHEMES} \s{{1,8}} )? \*\*\* | yes | no | none | null | true | false )
        (?: {_DELIMITER} | @ | $ ) )
"""
_VALUE = rf"""
    {_HARMLESS}
    (?P<value> {_QUOTED} | (?: \{{ [^}}\n]*+ \}}? | \( [^)\n]*+ \)? | \[ [^\]\n]*+ \]? )? {_BARE} )
"""
_ASSIGNED = _Form(
    rf"""
    (?= [acdeimpst-] )  # how the names begin: most positions fail here, at once
    (?P<key>
        {_NAME} \\*+ ["']? \]? \s*+
        (?> := | => | ==? | : (?! // | : ) | (?<=["']) , \s*+ (?= b["'] ) ) [^\S\n]*+
      | (?: password | identified \s{{1,8}} by ) \s++ (?= ["'] )
      | (?<! [\w-] ) -- [\w-]{{0,32}}? {_NAME} (?: ["'] , )? \s++ (?! - )
    )
    {_VALUE}
    """,
    re.VERBOSE | re.IGNORECASE,
)
_OPENING = re.compile(r"(b?)(\\*[\"'])")

# A header as it stands on the wire: its value goes on to the end of the line.
_HEADER = _Form(
    rf"""
    ( authorization \s*+ [:=] \s*+ {_SCHEMES} \s++ ) (?! \*\*\* ) \S++
  | ( (?: authorization \s*+ [:=] \s*+ (?! {_SCHEMES} \s ) | cookie \s*+ [:=] \s*+ )
      (?! \\*+ b? ["'] ) {_HARMLESS} ) [^\r\n]++
    """,
    re.VERBOSE | re.IGNORECASE,
)
# "Bearer token" and "Basic authentication" are words; a credential has a digit, a sign or mixed
# case.
_SCHEME = _Form(
    r"""
    \b ( (?i: bearer | basic ) \s++ )
    (?= [^\s"',;)\d_=]*+ [\d_=] | [^\s"',;)]*? [a-z][A-Z] )
    [^\s"',;)]{8,}+
    """,
    re.VERBOSE,
)
_TOKEN = _Form(
    r"""
    (?<! [A-Za-z0-9] )
    (?: (?: AKIA | ASIA ) [0-9A-Z]{16,}                     # AWS key id
      | AIza [\w-]{30,} | GOCSPX- [\w-]{20,} | ya29\. [\w-]{20,}       # Google
      | gh[pousr]_ [A-Za-z0-9]{16,} | github_pat_ \w{20,}   # GitHub
      | glpat- [\w-]{16,}                                   # GitLab
      | xox[a-z]- [\w-]{8,} | xapp- [\w-]{8,}               # Slack
      | [rs]k_ (?: live | test )_ \w{10,} | whsec_ \w{10,}  # Stripe
      | (?: npm | hf | dop_v1 )_ [A-Za-z0-9]{30,} | pypi- [\w-]{30,}
      | SG\. [\w-]{16,} \. [\w-]{16,}                       # SendGrid
      | (?<! [\w-] ) sk- [\w-]{20,}
      | (?<! [\w-] ) eyJ [\w-]{5,}+ \. [\w-]{5,}+ (?: \. [\w-]*+ )?    # JSON Web Token
    )
    """,
    re.VERBOSE,
)
# Redis repeats what it was sent, where it has no AUTH (or, before version 6, no HELLO).
_REDIS = _Form(
    r"(unknown command \W{1,3}(?:auth|hello)\W{1,3} with args beginning with: )[^\r\n]++",
    re.IGNORECASE,
)
_SLACK_HOOK = _Form(r"(hooks\.slack\.com/services/)[\w/-]+")


def _mask_url(found: re.Match[str]) -> str:
    # In `http://host:80/path@2`, what stands before the `@` is no password.
    if _PORT.match(found[2]):
        return found[0]
    scheme = found.string[max(0, found.start() - 5) : found.start()].lower()
    if scheme.endswith(_PATHS_MAY_HOLD_AT) and _PORT_AND_PATH.match(found[2]):
        return found[0]
    return f"{found[1]}{MASK}@"


def _mask_value(found: re.Match[str]) -> str:
    if not found["value"]:
        return found[0]
    quotes = _OPENING.match(found["value"])
    if quotes is None:
        return found["key"] + MASK
    return f"{found['key']}{quotes[0]}{MASK}{quotes[2]}"


_Mask = str | Callable[[re.Match[str]], str]
_RULES: tuple[tuple[_Form, _Mask], ...] = (
    (_PEM, rf"\1{MASK}\2"),
    (_URL, _mask_url),
    (_HTTP_KEY, rf"\1{MASK}@"),
    (_NETLOC, rf"\1{MASK}@"),
    (_HOST, rf"\1{MASK}@"),
    (_HEADER, rf"\1\2{MASK}"),
    (_SCHEME, rf"\1{MASK}"),
    (_ASSIGNED, _mask_value),
    (_TOKEN, MASK),
    (_REDIS, rf"\1{MASK}"),
    (_SLACK_HOOK, rf"\1{MASK}"),
)


@functools.cache
def _rules() -> tuple[tuple[re.Pattern[str], _Mask], ...]:
    # With the first text: to compile them takes as long as the import of half of the package, and
    # where all is well nobody needs them. An import would need a file, and there may be none left.
    return tuple((re.compile(*form), mask) for form, mask in _RULES)


def _apply(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(
        {form for one in secrets for form in _written(one)}, key=len, reverse=True
    ):
        if len(secret) < _STANDS_ALONE:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
        else:
            text = text.replace(secret, MASK)
    for pattern, replacement in _rules():
        text = pattern.sub(replacement, text)
    return text


def _written(secret: str) -> set[str]:
    """Return the ways in which a secret may appear in a text."""
    if not secret.strip("*"):
        return set()
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
    }


def _shorten(text: str, limit: int, *, cut: bool = False) -> str:
    if not cut and len(text) <= limit:
        return text
    return text[: limit - 1].rstrip() + "…"


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without credentials, at most 10,000 characters of it.

    Known forms (URLs, connection strings, headers, `name=value` pairs, dumps of configurations, the
    tokens of well-known services, private keys) lose their secret part and keep the rest: of
    `redis://user:password@host` user and host stay. `secrets` are values to take out wherever they
    appear, in any usual escaping.
    """
    cut = len(text) > _TEXT_KEPT + _MARGIN
    clean = _apply(text[: _TEXT_KEPT + _MARGIN], [secrets] if isinstance(secrets, str) else secrets)
    if cut:
        clean = clean[:-_MARGIN]
    return _shorten(clean, _TEXT_KEPT, cut=cut)


def scrub_line(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the same on one line, with nothing in it that a terminal or a log's reader obeys."""
    clean = scrub(text, secrets)
    return " ".join("".join(c if c.isprintable() else " " for c in clean).split())


def scrub_value(name: str, value: str) -> str:
    """Return `value`, which goes by `name`: of `hunter2` alone nobody can tell what it is."""
    return scrub(f"{name}={value}").removeprefix(f"{name}=")


def scrub_exception(exc: BaseException, secrets: Iterable[str] = ()) -> str:
    """Return `"TypeName: message"` on one line without credentials, at most 1,000 characters.

    Of an exception group it names the first few exceptions inside. An exception whose `__str__`
    fails has its type's name only.
    """
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    if isinstance(exc, BaseExceptionGroup):
        inner = [_describe(one, secrets) for one in exc.exceptions[:_GROUP_KEPT]]
        more = len(exc.exceptions) - len(inner)
        line = "; ".join(inner) + (f"; and {more} more" if more else "")
        line = f"{type(exc).__name__}: {line}"
    else:
        line = _describe(exc, secrets)
    return _shorten(line, _MESSAGE_KEPT)


def scrub_traceback(exc: BaseException, secrets: Iterable[str] = ()) -> str:
    """Return the traceback of `exc` for a log, without credentials, at most 10,000 characters.

    Of each traceback in the chain the innermost frames are kept; of a long chain, its end.
    """
    secrets = list(secrets)
    try:
        parts = traceback.format_exception(exc, limit=-_FRAMES_KEPT)
    except Exception:  # noqa: BLE001 - an exception may be broken in any way; to log it must not fail
        return scrub_exception(exc, secrets)
    kept: list[str] = []
    room = _TEXT_KEPT - len(_LEFT_OUT)
    for part in reversed(parts):
        clean = scrub(part, secrets)
        if len(clean) > room:
            kept.append(_LEFT_OUT)
            break
        kept.append(clean)
        room -= len(clean)
    return "".join(reversed(kept)).rstrip("\n")


def log_exception(logger: logging.Logger, exc: BaseException, message: str, *args: object) -> None:
    """Log `message` and the traceback of `exc`, as `logger.exception` does, but scrubbed."""
    with_traceback = f"{message}\n%s"
    logger.error(with_traceback, *args, scrub_traceback(exc), stacklevel=2)


def tell_uncaught(exc: BaseException) -> None:
    """Tell `sys.excepthook` of `exc`, which nobody else hears of.

    A hook of the app's gets the exception itself. Where it is Python's own, this prints it,
    scrubbed.
    """
    with contextlib.suppress(Exception):  # the hook is broken; or stderr is closed, or the app's
        if sys.excepthook is not sys.__excepthook__:
            sys.excepthook(type(exc), exc, exc.__traceback__)
        elif sys.stderr is not None:
            sys.stderr.write(f"{scrub_traceback(exc)}\n")


@contextlib.contextmanager
def outlived() -> Iterator[None]:
    """Go on after the body, whatever `Exception` it raises: `sys.excepthook` is told of that.

    For what is logged outside of the app's own calls: a log of the app's may be broken there, as a
    filter is that wants a request.
    """
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - nobody waits for it to be told
        tell_uncaught(exc)


def _describe(exc: BaseException, secrets: Iterable[str]) -> str:
    name = type(exc).__name__
    try:
        message = str(exc)
    except Exception:  # noqa: BLE001 - an exception may be broken in any way; to name it must not fail
        return name
    message = scrub_line(message, secrets)
    return f"{name}: {_shorten(message, _MESSAGE_KEPT)}" if message else name
