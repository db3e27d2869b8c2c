"""The options of `healthmw smoke`, and its help."""

from __future__ import annotations

import argparse
import shlex

from healthmw.cli import _options
from healthmw.cli._target import DEFAULT_PATH

PROCESS = "web"

_USAGE = """\
healthmw smoke [options] -- COMMAND [ARGUMENT ...]
       healthmw smoke [options] --procfile [FILE] [--process NAME]"""

_ABOUT = """\
Test a release before it gets traffic: start the web server on a free port,
ask its health check until it answers OKAY, and stop it.

COMMAND finds the port and the address in its environment, as PORT and HOST
(and HEALTHMW_SMOKE=1, so that an app can tell). It must stay in the foreground.
No shell reads it: write {port} and {host} where they belong, or let a shell do
it: sh -c 'exec ... $PORT', in single quotes. A Procfile's line is read by sh."""

_EXAMPLES = """\
examples:
  healthmw smoke -- gunicorn app:app             gunicorn takes $PORT by itself
  healthmw smoke -- uvicorn app:app --port {port}
  healthmw smoke --procfile                      the line `web:` of ./Procfile
  healthmw smoke --procfile --group release --strict
                                                 the release checks as well, and
                                                 none of them degraded
  healthmw smoke --warm-up / --passes 3 -- ...   first the front page, then OKAY
                                                 three times
  healthmw smoke --env WEB_CONCURRENCY=1 -- ...  one worker will do for a trial
  healthmw smoke --unix-socket /tmp/web -- gunicorn -b unix:/tmp/web app:app
  healthmw smoke --scheme https --cacert ca.pem -- ...

in a Procfile, where a release command that fails halts the deploy:
  release: healthmw smoke --procfile
  web: gunicorn app:app

exit status:
  0        passed
  1        not well: a wrong answer, none in time, or the server ended by itself
  2        could not tell: command or Procfile not found, port taken before the
           start, wrong usage
  128 + N  stopped by signal N: 130 for Ctrl-C, 143 for TERM. The server is
           stopped first; a second signal cuts its grace short

The server is stopped with TERM to its process group and, after --grace, KILL.
On Linux the daemons that have left the group are found and stopped as well.
Progress goes to standard error, the verdict to standard output."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = _options.parser("smoke", usage=_USAGE, about=_ABOUT, examples=_EXAMPLES)
    parser.add_argument("stray", nargs="*", help=argparse.SUPPRESS)

    add = parser.add_argument_group("the server").add_argument
    add(
        "--procfile",
        nargs="?",
        const="Procfile",
        metavar="FILE",
        help="run a line of this Procfile with `sh -c` (without FILE: ./Procfile)",
    )
    add(
        "--process",
        metavar="NAME",
        help=f"which line of the Procfile (default: {PROCESS})",
    )
    add(
        "--env",
        type=_options.variable,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a variable for the server (may be repeated)",
    )
    add(
        "--port",
        type=_options.port,
        default=0,
        help="where it is to listen (default: a free port)",
    )
    add("--host", default="127.0.0.1", help="the same (default: %(default)s)")
    add("--unix-socket", metavar="FILE", help="ask through this socket, and not through the port")
    add(
        "--grace",
        type=_options.grace,
        default=10.0,
        metavar="SECONDS",
        help="how long it may take to stop before it is killed (default: %(default)g)",
    )

    add = parser.add_argument_group("the trial").add_argument
    add(
        "--path",
        type=_options.path,
        default=DEFAULT_PATH,
        help="where the health check is (default: %(default)s)",
    )
    add("--scheme", choices=("http", "https"), default="http", help="default: %(default)s")
    add(
        "--warm-up",
        type=_options.path,
        action="append",
        default=[],
        metavar="PATH",
        help="first ask for this path until it answers with a status below 400 (may be repeated)",
    )
    add(
        "--passes",
        type=_options.count,
        default=1,
        metavar="N",
        help="how many times in a row it must be well (default: %(default)s)",
    )
    add(
        "--timeout",
        type=_options.duration,
        default=60.0,
        metavar="SECONDS",
        help="for all of it, the boot included (default: %(default)g)",
    )
    add(
        "--interval",
        type=_options.duration,
        default=0.5,
        metavar="SECONDS",
        help="between two requests (default: %(default)g)",
    )
    add(
        "--request-timeout",
        type=_options.duration,
        default=10.0,
        metavar="SECONDS",
        help="for one request, to its last byte (default: %(default)g)",
    )
    _options.add_question(parser)

    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="the verdict as one JSON object on standard output")
    add(
        "--log-lines",
        type=_options.count,
        default=20,
        metavar="N",
        help="how much of the server's log to show when it is not well (default: %(default)s)",
    )
    return parser


def check(
    parser: argparse.ArgumentParser, args: argparse.Namespace, command: list[str] | None
) -> None:
    """Refuse what argparse can't: combinations."""
    if args.stray and command is None and args.procfile is None:
        parser.error(f"put -- before the command: healthmw smoke -- {shlex.join(args.stray)}")
    if args.stray:
        parser.error(f"what is {args.stray[0]!r}? Options come before --, the command after it")
    if args.procfile is None and not command:
        parser.error("what is to be started? Give -- COMMAND, or --procfile")
    if args.procfile is not None and command is not None:
        parser.error("give either --procfile or -- COMMAND, not both")
    if args.procfile is None and args.process is not None:
        parser.error("--process is a line of a Procfile: give --procfile too")
    if args.scheme == "http" and (args.cacert or args.insecure):
        parser.error("--cacert and --insecure are for --scheme https")
    if "PORT" in dict(args.env):
        parser.error("--env PORT: give the port with --port, so that it is asked there too")
