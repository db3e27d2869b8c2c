"""Options that several commands share, and the types of their values.

Each type raises `ArgumentTypeError` with the mend in it; argparse puts the option's name before it.
"""

from __future__ import annotations

import argparse
import os
import re

from healthmw.cli._target import Question, escaped
from healthmw.cli._text import without_credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from healthmw.cli._http import Headers

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*)")
_RELEASE = re.compile(r"[!-~]{1,128}")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_LONGEST = 24 * 3600.0
_EXPECTED = "OKAY"


class _Parser(argparse.ArgumentParser):
    """Complains without the credentials that a misplaced word may have."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all of `args`."""
        found, others = self.parse_known_args(args, namespace)
        if others:
            # Of an option that there isn't the name alone: its value may be a token.
            names = [one.partition("=")[0] if one.startswith("-") else one for one in others]
            self.error(f"unrecognized arguments: {' '.join(names)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with 2."""
        super().error(without_credentials(message))


def parser(name: str, *, usage: str, about: str, examples: str) -> argparse.ArgumentParser:
    """Return the parser of one command, whose help ends in examples."""
    return _Parser(
        prog=f"healthmw {name}",
        usage=usage,
        description=about,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a new option must not change what a script means
    )


def split(words: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Return the words before the first `--`, and those after it (None where there is no `--`)."""
    if "--" not in words:
        return list(words), None
    at = words.index("--")
    return list(words[:at]), list(words[at + 1 :])


def add_question(parser: argparse.ArgumentParser) -> None:
    """Add what to send and what counts as well."""
    group = parser.add_argument_group("what is asked, and what counts as well")
    group.add_argument(
        "--expect",
        metavar="TEXT",
        help=f"the whole body of a 2xx answer, byte for byte (default: {_EXPECTED})",
    )
    group.add_argument("--any-body", action="store_true", help="any 2xx answer will do")
    group.add_argument(
        "--strict", action="store_true", help="`Health-Status: degraded` is not well either"
    )
    group.add_argument(
        "--group",
        type=group_name,
        metavar="GROUP",
        help="ask for the group of this name (of a URL: below its path): `release`, `live`, ...",
    )
    group.add_argument(
        "--header",
        type=header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="send this header too, or in place of healthmw's own (may be repeated)",
    )
    group.add_argument(
        "--cacert", metavar="FILE", help="HTTPS: trust the CAs in this PEM file, and no others"
    )
    group.add_argument(
        "--insecure", action="store_true", help="HTTPS: do not verify the certificate"
    )


def question(
    args: argparse.Namespace, *, headers: Headers = (), kind: type[Question] = Question
) -> Question:
    """Return what the options of `add_question` say; `headers` are sent unless they are given."""
    expected = _EXPECTED if args.expect is None else args.expect
    given = {name.lower() for name, _ in args.header}
    return kind(
        expect=None if args.any_body else os.fsencode(expected),
        strict=args.strict,
        group=args.group,
        headers=[*(one for one in headers if one[0].lower() not in given), *args.header],
    )


def of_http(args: argparse.Namespace) -> list[str]:
    """Return the options of `add_question` that were given and that only HTTP can use."""
    given = {
        "--expect": args.expect is not None,
        "--any-body": args.any_body,
        "--header": bool(args.header),
        "--cacert": args.cacert is not None,
        "--insecure": args.insecure,
    }
    return [option for option, is_given in given.items() if is_given]


def duration(text: str) -> float:
    """Parse a number of seconds above 0, and at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _LONGEST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds above 0 and up to {_LONGEST:.0f} (a day)"
        )
    return value


def grace(text: str) -> float:
    """Parse a number of seconds, 0 included."""
    return 0.0 if text in {"0", "0.0"} else duration(text)


def count(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def port(text: str) -> int:
    """Parse a TCP port; 0 means any free one."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 1 to 65535, or 0 for a free one")
    return int(text)


def path(text: str) -> str:
    """Parse the path of a request, and escape what can't stand in a request line."""
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} does not begin with a slash: /{text}")
    return escaped(text)


def header(text: str) -> tuple[str, str]:
    """Parse `Name: value`."""
    match = _HEADER.fullmatch(text)
    if match is None or not (match[2].isprintable() and _is_latin(match[2])):
        # The text is not repeated: it may hold a token.
        raise argparse.ArgumentTypeError("a header looks like 'Name: value', on one line")
    return match[1], match[2].strip()


def group_name(text: str) -> str:
    """Parse the name of a group of checks."""
    if _NAME.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a group, like `release`")
    return text


def release(text: str) -> str:
    """Parse the name of a release, as `Health(release=)` takes it."""
    if _RELEASE.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(
            f"no answer comes from a release {text!r}: up to 128 printable ASCII characters,"
            " no spaces; is the variable set that has its name?"
        )
    return text


def variable(text: str) -> tuple[str, str]:
    """Parse `NAME=VALUE` for the environment."""
    name, mark, value = text.partition("=")
    if not (name and mark):
        raise argparse.ArgumentTypeError("a variable looks like NAME=VALUE")
    return name, value


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
