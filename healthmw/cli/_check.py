"""`healthmw check`: ask once."""

from __future__ import annotations

import sys

from healthmw.cli import _options
from healthmw.cli._output import Paint, emit
from healthmw.cli._resolve import KINDS, resolve
from healthmw.cli._target import Question
from healthmw.cli._verdict import as_json, exit_status, unknown_as_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from healthmw.cli._target import Observation

_USAGE = "healthmw check [options] TARGET ..."

_ABOUT = f"""\
Ask each TARGET once, all at the same time, and say on one line what is wrong.

{KINDS}"""

_EXAMPLES = """\
examples:
  healthmw check http://localhost:8000
  healthmw check --group release https://app.example.com/health_check
  healthmw check --any-body --timeout 2 https://example.com/
  healthmw check unix:/run/app.sock
  healthmw check --json http://web-1:8000 http://web-2:8000
  healthmw check --verbose --group release app:health
  healthmw check postgresql://localhost/shop redis://localhost tcp://mail:25

in a Dockerfile (Docker reserves the exit status 2, hence the `|| exit 1`):
  HEALTHCHECK CMD healthmw check http://localhost:8000 || exit 1

exit status:
  0  all are well
  1  one is not well: a wrong answer, or none in time
  2  could not tell: one can't be reached and the others are well; wrong usage"""


def run(words: list[str]) -> int:
    """Run the command with the arguments `words`, and return the exit status."""
    args = make_parser().parse_args(words)
    kind = _with_checks(args) if args.verbose else Question
    with unknown_as_json(sys.stdout, wanted=args.json):
        targets = [resolve(text, args, kind=kind) for text in args.targets]
    if len(targets) == 1:
        seen = [targets[0].observe(args.timeout)]
    else:
        from healthmw.cli._ask import ask

        seen = ask(targets, timeout=args.timeout) or []
    code = exit_status(seen)
    if args.json:
        import json

        emit(json.dumps(as_json(zip(targets, seen, strict=True), code)), sys.stdout)
        return code
    paint = Paint(sys.stdout)
    width = max(len(one.word) for one in seen)
    for target, one in zip(targets, seen, strict=True):
        emit(f"{paint.verdict(one.word, width)}  {target.name}: {_telling(one)}", sys.stdout)
        for line in one.lines if args.verbose else ():
            emit(f"  {line}", sys.stdout)
    return code


def _with_checks(args: argparse.Namespace) -> type[Question]:
    from healthmw.cli._health_json import question_type

    return question_type(args)


def _telling(one: Observation) -> str:
    release = f" (release {one.release})" if one.release else ""
    return f"{one.text}, in {one.seconds * 1000:.0f} ms{release}"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = _options.parser("check", usage=_USAGE, about=_ABOUT, examples=_EXAMPLES)
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="what to ask")
    parser.add_argument(
        "--timeout",
        type=_options.duration,
        default=10.0,
        metavar="SECONDS",
        help="for all of it, to the last byte (default: %(default)g)",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="a line for each check (of a URL: as far as the server lets the caller see)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    _options.add_question(parser)
    return parser
