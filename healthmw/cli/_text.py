"""Text from elsewhere (bodies, log lines), made fit for a terminal."""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_QUOTED = 60
# What stands before the last '@' of a word, and after the scheme if it has one.
_CREDENTIALS = re.compile(r"((?:^|[\s'\"=(])(?:[\w+.-]+://)?)[^\s'\"]*(?<!\*\*\*)@")


def without_credentials(text: str) -> str:
    """Return `text` without what comes before an '@': of a DSN out of its place, a password."""
    return _CREDENTIALS.sub(r"\1***@", text)


def of_command(text: str) -> str:
    """Return the command `text` as it may be shown: `--password ***`, `TOKEN=***`."""
    from healthmw._scrub import scrub

    return scrub(without_credentials(text))


def clean(text: bytes | str, width: int = 400) -> str:
    """Return one line of `text` without escape sequences and control characters, cut at `width`."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = _ESCAPES.sub("", text[: 8 * width]).rstrip().expandtabs()
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def first_line(body: bytes, width: int = 120) -> str:
    """Return the first line of a body that has anything in it."""
    return next((clean(line, width) for line in body.splitlines() if line.strip()), "")


def quoted(body: bytes) -> str:
    """Return the beginning of a body in quotes, with its white space visible."""
    text = body[: _QUOTED * 4].decode("utf-8", "replace")
    return repr(text) if len(text) <= _QUOTED else f"{text[:_QUOTED]!r}..."


def seconds(value: float) -> str:
    """Write how long something took as a person would: `0.4 s`, `12 s`, `3 min 5 s`."""
    if value < 9.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def limit(value: float) -> str:
    """Write a time limit as it was given: `60 s`, `0.25 s`."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + " s"
