"""`healthmw wait`: ask until all are well, and then become another command."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from healthmw.cli import _options
from healthmw.cli._exit import WELL, CouldNotTell
from healthmw.cli._output import Paint, Progress, emit
from healthmw.cli._resolve import KINDS, resolve
from healthmw.cli._rounds import Rounds
from healthmw.cli._signals import Signals
from healthmw.cli._text import of_command
from healthmw.cli._verdict import unknown_as_json

if TYPE_CHECKING:
    import argparse
    from typing import NoReturn

_USAGE = "healthmw wait [options] TARGET ... [-- COMMAND [ARGUMENT ...]]"

_ABOUT = f"""\
Ask every TARGET until all are well in the same round, then become COMMAND.

{KINDS}"""

_EXAMPLES = """\
examples:
  healthmw wait http://web:8000 -- celery -A app worker
                                a worker that starts once the web is up
  healthmw wait app:health -- gunicorn app:app
                                a server that binds its port only when all that
                                it needs answers
  healthmw wait postgresql://db/shop redis://cache -- ./manage.py migrate
  healthmw wait --timeout 300 http://web-1:8000 http://web-2:8000
  healthmw wait --release v42 --passes 10 https://app.example.com
                                after a deploy: until ten answers in a row come
                                from v42, and how often the old release answered

exit status:
  0        all are well (with COMMAND: its own exit status)
  1        time is up, and one is not well
  2        time is up, and one could not be reached; COMMAND not found; wrong
           usage
  128 + N  stopped by signal N: 130 for Ctrl-C, 143 for TERM

COMMAND takes this process over, with its pid, input and outputs; with COMMAND
the verdict goes to standard error, where progress goes."""


def run(words: list[str]) -> int:
    """Run the command with the arguments `words`, and return the exit status."""
    options, command = _options.split(words)
    parser = make_parser()
    args = parser.parse_args(options)
    if command == []:
        parser.error("there is no command after --")
    stream = sys.stderr if command else sys.stdout
    # A target that is imported may change both: they are the command's.
    env, folder = dict(os.environ), _folder()
    with unknown_as_json(stream, wanted=args.json):
        if command and shutil.which(command[0]) is None:  # now, and not after the wait
            raise CouldNotTell(_not_started(command[0]))
        targets = [resolve(text, args) for text in args.targets]
    progress = Progress()
    with Signals() as signals:
        rounds = Rounds(targets, args=args, signals=signals, progress=progress)
        rounds.run()
    progress.clear()
    code = rounds.exit_status if signals.first is None else 128 + signals.first
    if args.json:
        import json

        emit(json.dumps(rounds.as_json(code)), stream)
    else:
        for word, text in rounds.lines():
            emit(f"{Paint(stream).verdict(word)}  {text}", stream)
    if code == WELL and command:
        progress.line(f"Starting  {of_command(shlex.join(command))}")
        _become(command, env=env, folder=folder)
    return code


def _not_started(name: str) -> str:
    if os.sep in name and os.path.lexists(name):
        return f"the command may not be executed: {name} (is it a program, and is it chmod +x?)"
    return f"command not found: {name}"


def _folder() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it is gone
        return Path()


def _become(command: list[str], *, env: dict[str, str], folder: Path) -> NoReturn:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and exec would hand that on
    try:
        os.chdir(folder)
        os.execvpe(command[0], command, env)  # noqa: S606 - to run the user's command is the job
    except OSError as exc:
        raise CouldNotTell(f"{command[0]} can't be started: {exc.strerror}") from None


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = _options.parser("wait", usage=_USAGE, about=_ABOUT, examples=_EXAMPLES)
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="what to ask")
    add = parser.add_argument_group("the wait").add_argument
    add(
        "--timeout",
        type=_options.duration,
        default=60.0,
        metavar="SECONDS",
        help="for all of it (default: %(default)g)",
    )
    add(
        "--interval",
        type=_options.duration,
        default=1.0,
        metavar="SECONDS",
        help="between two rounds (default: %(default)g)",
    )
    add(
        "--request-timeout",
        type=_options.duration,
        default=10.0,
        metavar="SECONDS",
        help="for one request, to its last byte (default: %(default)g)",
    )
    add(
        "--passes",
        type=_options.count,
        default=1,
        metavar="N",
        help="how many rounds in a row all must be well (default: %(default)s)",
    )
    add(
        "--release",
        type=_options.release,
        metavar="R",
        help="the answers must come from this release (Health-Release)",
    )
    add("--json", action="store_true", help="the verdict as one JSON object")
    _options.add_question(parser)
    return parser
