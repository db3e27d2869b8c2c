"""The command line: `healthmw COMMAND ...`, and `python -m healthmw` the same.

Only the module of the command that is asked for is imported, and none of them imports the engine
before it needs it: `healthmw check URL` runs every few seconds in somebody's container.
"""

from __future__ import annotations

import importlib
import sys

from healthmw.cli._exit import COULD_NOT_TELL, WELL, CouldNotTell
from healthmw.cli._output import emit
from healthmw.cli._text import without_credentials

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself is a tenth of the time to start
    from collections.abc import Callable, Sequence

__all__ = ("main",)

_COMMANDS = {
    "smoke": ("_smoke", "boot a web server on a free port, ask it whether it is well, stop it"),
    "check": ("_check", "ask once, and say on one line what is wrong"),
    "wait": ("_wait", "ask until all are well, and then become another command"),
    "watch": ("_watch", "ask for ever, and say in one line what changes"),
    "completion": ("_completion", "print what makes a shell complete all of this"),
}

_HELP = """\
usage: healthmw COMMAND ...

Health checks from the command line.

commands:
{commands}

examples:
  healthmw smoke -- gunicorn app:app          test a release before it gets traffic
  healthmw smoke --procfile                   the same, with the Procfile's `web` line
  healthmw check http://localhost:8000        is it well? For cron, CI and containers
  healthmw check app:health                   the same without a server
  healthmw wait http://web:8000 -- COMMAND    start a worker when the web is up
  healthmw wait app:health -- COMMAND         bind the port once its needs are met
  healthmw watch http://web:8000 app:health   what changes, and when
  healthmw COMMAND --help                     what a command can do, with more examples

exit status: 0 well; 1 not well; 2 could not tell (unreachable, command not found, wrong usage)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default the process's own) and return its exit status.

    0: well. 1: not well. 2: could not tell.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        emit(_help(), sys.stderr)
        return COULD_NOT_TELL
    name = words.pop(0)
    if name in {"-h", "--help", "help"}:
        emit(_help(), sys.stdout)
        return WELL
    if name in {"-V", "--version"}:
        from importlib.metadata import version

        emit(f"healthmw {version('healthmw')}", sys.stdout)
        return WELL
    return _run(name, words)


def _run(name: str, words: list[str]) -> int:
    try:
        return _load(name)(words)
    except SystemExit as exc:  # argparse: 0 after --help, 2 after a wrong option
        return exc.code if isinstance(exc.code, int) else COULD_NOT_TELL
    except KeyboardInterrupt:
        return 128 + 2  # as a shell has it for SIGINT
    except CouldNotTell as exc:
        known = f" {name}" if name in _COMMANDS else ""
        emit(f"healthmw{known}: {without_credentials(str(exc))}", sys.stderr)
        return COULD_NOT_TELL


def _load(name: str) -> Callable[[list[str]], int]:
    if name not in _COMMANDS:
        raise CouldNotTell(_unknown(name))
    run: Callable[[list[str]], int] = importlib.import_module(
        f"healthmw.cli.{_COMMANDS[name][0]}"
    ).run
    return run


def _help() -> str:
    return _HELP.format(
        commands="\n".join(f"  {name:<12}{what}" for name, (_, what) in _COMMANDS.items())
    )


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, _COMMANDS, n=1)
    hint = f"did you mean `healthmw {near[0]}`?" if near else "`healthmw --help` lists the commands"
    return f"there is no command {name!r}: {hint}"
